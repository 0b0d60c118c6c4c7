"""Feeds recorded outputs through the drafters, without any model: how many tokens per call, how much faster
would a job be?

    python jobs/replay.py --transcripts FILE --speculate mixed --num_drafts 10 --sources context
    python jobs/replay.py --transcripts FILE --speculate adaptive --row_price 0.4 0.2 0.1 0.05 0.025 0.01
    python jobs/replay.py --transcripts FILE --speculate adaptive --cost_model FILE --batch_size 1 16

A line of a transcript (JSONL, plain or .gz) is {"id", "group", "prompt", "output"}: token ids, or text with
--tokenizer. docs/drafting.md says how the figures are counted.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from drafting.config import MODES, SOURCES, SpeculationConfig

POINTS = (3, 6, 12, 24)  # nodes per call at which a sweep is read
NUM_SUCCESSORS = 16  # of a token, in a bigram that an adaptive replay learns from the text


def parse_args(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; its defaults are those of SpeculationConfig."""
    defaults = SpeculationConfig()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--transcripts", nargs="+", type=Path, required=True, metavar="FILE", help="JSONL files, plain or .gz"
    )
    parser.add_argument(
        "--speculate", choices=[mode for mode in MODES if mode != "off"], default=defaults.mode
    )
    parser.add_argument("--num_drafts", type=int, default=defaults.num_drafts, metavar="k")
    parser.add_argument("--draft_len", type=int, default=defaults.draft_len, metavar="w")
    parser.add_argument("--query_len", type=int, default=defaults.query_len, metavar="q")
    parser.add_argument(
        "--max_nodes_per_sequence",
        type=int,
        default=None,
        metavar="N",
        help="nodes of a tree at most; default k x w",
    )
    parser.add_argument(
        "--sources", default=",".join(defaults.sources), metavar="A[,B]", help=f"of {', '.join(SOURCES)}"
    )
    parser.add_argument(
        "--row_price",
        type=float,
        nargs="+",
        metavar="P",
        help="adaptive verifies what survives this often; default 0.1",
    )
    parser.add_argument(
        "--batch_size", type=int, nargs="+", default=[1], metavar="N", help="rows that run at once"
    )
    parser.add_argument(
        "--cost_model",
        type=Path,
        metavar="FILE",
        help="a machine's costs: predicts the speedup of a job on it",
    )
    parser.add_argument(
        "--thinking_us",
        type=float,
        metavar="T",
        help="microseconds that guessing takes per row; default: measured here",
    )
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="the first rows only")
    parser.add_argument(
        "--tables",
        type=Path,
        metavar="DIR",
        help="a model's tables, and calibration if a job has left it; without, bigram learns from the text",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="a folder with tokenizer.json, for transcripts that are text",
    )
    parser.add_argument(
        "--guesses",
        action="store_true",
        help="print what became of guesses (of one price) by source, depth and match",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures to this file")
    return parser.parse_args(arguments)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Replays the files and returns the figures as --json writes them; those of a sweep come as a list."""
    # Here and not above: importing a job must stay cheap, and these bring numba.
    from drafting.replay.replay import at_nodes
    from drafting.replay.transcripts import read_transcripts

    sources = args.sources.split(",")
    config = SpeculationConfig(
        args.speculate, args.num_drafts, args.draft_len, args.query_len, sources, args.max_nodes_per_sequence
    )
    check_simulation(args, config)
    encode = load_encode(args.tokenizer) if args.tokenizer else None
    transcripts = [transcript for path in args.transcripts for transcript in read_transcripts(path, encode)][
        : args.limit
    ]
    if args.cost_model:
        return simulate(transcripts, args, config)
    if config.mode == "mixed":
        return replay_once(transcripts, args, config, 0.0)
    args.row_price = args.row_price or [0.1]
    if any(not 0 < price <= 1 for price in args.row_price):
        raise ValueError(f"--row_price is {args.row_price}; a price is a probability above 0, at most 1")
    sweep = [
        {"row_price": price, **replay_once(transcripts, args, config, price)} for price in args.row_price
    ]
    return sweep[0] if len(sweep) == 1 else {"sweep": sweep, "at_nodes": at_nodes(sweep, POINTS)}


def check_simulation(args: argparse.Namespace, config: SpeculationConfig) -> None:
    """Raises ValueError for flags that do not go together, with or without --cost_model."""
    if min(args.batch_size) < 1:
        raise ValueError(f"--batch_size is {min(args.batch_size)}; it must be at least 1")
    if args.cost_model and args.row_price:
        raise ValueError(
            "--row_price and --cost_model are both given; "
            "with a cost model the price follows from the job, so leave one out"
        )
    if args.thinking_us is not None and not (args.cost_model and 0 <= args.thinking_us < float("inf")):
        raise ValueError(
            f"--thinking_us is {args.thinking_us}; it must be 0 or more, and goes with --cost_model"
        )
    if not args.cost_model and len(args.batch_size) > 1:
        raise ValueError(
            f"--batch_size is {args.batch_size}; several can be compared with --cost_model alone"
        )


def simulate(transcripts: list[Any], args: argparse.Namespace, config: SpeculationConfig) -> dict[str, Any]:
    """A whole job at each batch size, plain and with guesses."""
    from copy import deepcopy

    from drafting.adaptive.controller import Controller
    from drafting.adaptive.cost_model import CostModel
    from drafting.replay.simulation import Job, compare
    from drafting.speculation import Speculation, VerifyAll
    from engine.config import ModelConfig

    cost = CostModel.load(args.cost_model)
    chunk = ModelConfig.prefill_chunk
    think_seconds = None if args.thinking_us is None else args.thinking_us / 1e6
    jobs = []
    for batch_size in args.batch_size:
        plain = Job(cost, batch_size, chunk).run(transcripts)
        proposer, learned_bigram = start_proposer(transcripts, args, config)
        speculation = Speculation(
            proposer, Controller(deepcopy(cost)) if config.mode == "adaptive" else VerifyAll()
        )
        guessed = Job(cost, batch_size, chunk, speculation, learned_bigram, think_seconds).run(transcripts)
        jobs.append({"batch_size": batch_size, **compare(plain, guessed, proposer.source_names)})
    profiled = int(max(shape.sequences for shape in cost.profile.shapes))
    return {"cost_model": cost.about, "profiled_sequences": profiled, "jobs": jobs}


def replay_once(
    transcripts: list[Any], args: argparse.Namespace, config: SpeculationConfig, row_price: float
) -> dict[str, Any]:
    """The figures of one run; each begins with a proposer that knows nothing."""
    from drafting.outcomes import GuessCounts
    from drafting.replay.replay import choose_likely, replay, report

    proposer, learned_bigram = start_proposer(transcripts, args, config)
    # Unlikelier guesses than are verified are looked for too: they are scored, and can become likely.
    guesses = GuessCounts(proposer.source_names)
    likely = (
        lambda found: choose_likely(found, row_price),
        learned_bigram,
        args.batch_size[0],
        row_price / 4,
    )
    return {
        **report(replay(transcripts, proposer, *likely, guesses), proposer.source_names),
        "guesses": guesses.figures(),
    }


def start_proposer(
    transcripts: list[Any], args: argparse.Namespace, config: SpeculationConfig
) -> tuple[Any, Any]:
    """A proposer that knows no text yet, and the bigram table of it that is to learn from the text, if it is
    one. What a job of the model has taught about guesses lies beside its tables.
    """
    tables, learned_bigram = choose_tables(
        args.tables, config, 1 + max(transcript.max_id for transcript in transcripts)
    )
    proposer = make_proposer(config, tables)
    if config.mode == "adaptive" and args.tables:
        proposer.calibration.load(args.tables / "calibration.npz")
    return (
        proposer,
        proposer.bigram if config.mode == "adaptive" and learned_bigram is not None else learned_bigram,
    )


def make_proposer(config: SpeculationConfig, tables: Any) -> Any:
    """The proposer that the settings ask for."""
    from drafting.adaptive.adaptive_proposer import AdaptiveProposer
    from drafting.mixed_proposer import MixedProposer

    if config.mode == "adaptive":
        return AdaptiveProposer(max_nodes=config.max_nodes, corpus_tokens=config.corpus_tokens, tables=tables)
    return MixedProposer(
        num_drafts=config.num_drafts,
        draft_len=config.draft_len,
        query_len=config.query_len,
        sources=config.sources,
        max_nodes=config.max_nodes,
        tables=tables,
    )


def choose_tables(folder: Path | None, config: SpeculationConfig, vocab_size: int) -> tuple[Any, Any]:
    """A model's tables from their folder; without one, a bigram table that will learn from the text (also
    returned alone).
    """
    from drafting.bigram import empty_table
    from drafting.tables import Tables, load_tables

    num_successors = config.num_drafts if config.mode == "mixed" else NUM_SUCCESSORS
    learned_bigram = (
        empty_table(vocab_size, num_successors) if folder is None and "bigram" in config.sources else None
    )
    tables = Tables(bigram=learned_bigram) if folder is None else load_tables(folder)
    for source in config.sources:
        if source != "context" and getattr(tables, source) is None:
            place = f"no {source} table in {folder}" if folder else f"{source} cannot be learned from text"
            raise ValueError(f"{place}; make one with jobs/build_tables.py and give its folder as --tables")
    return tables, learned_bigram


def load_encode(folder: Path) -> Callable[[str, bool], list[int]]:
    """Text to ids with a tokenizer's files; only a prompt gets the tokens that begin a text."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises plain Exception for a file that is missing or damaged
        raise ValueError(f"{folder / 'tokenizer.json'} cannot be read: {error}") from error
    return lambda text, is_prompt: list(tokenizer.encode(text, add_special_tokens=is_prompt).ids)


def print_report(figures: dict[str, Any], with_guesses: bool = False) -> None:
    """The figures as tables: by group with the total last, by source, and on request by what guesses were
    like.
    """
    from rich.console import Console
    from rich.table import Table

    if "sweep" in figures:
        print_sweep(figures)
        return
    if "jobs" in figures:
        print_jobs(figures)
        return
    groups = Table("group", "tokens per call", "nodes per call")
    for name, group in [*figures["by_group"].items(), ("all", figures)]:
        groups.add_row(name, f"{group['tokens_per_call']:.2f}", f"{group['nodes_per_call']:.1f}")
    sources = Table("source", "verified", "accepted", "acceptance rate")
    for name, source in figures["by_source"].items():
        sources.add_row(name, str(source["verified"]), str(source["accepted"]), acceptance_rate(source))
    guesses = Table("source", "depth", "match", "proposed", "verified", "accepted", "acceptance rate")
    for row in figures["guesses"]:
        guesses.add_row(*(str(value) for value in row.values()), acceptance_rate(row))
    for table in (groups, sources, guesses)[: 3 if with_guesses else 2]:
        for column in table.columns[1:]:
            column.justify = "right"
        Console().print(table)
    print(f"{figures['tokens']} tokens in {figures['calls']} calls, {figures['nodes']} nodes verified")


def acceptance_rate(counts: dict[str, Any]) -> str:
    """Accepted / verified, where anything was."""
    return f"{100 * counts['accepted'] / counts['verified']:.1f} %" if counts["verified"] else "-"


def print_sweep(figures: dict[str, Any]) -> None:
    """A line for each price, and tokens per call read between them."""
    for run in figures["sweep"]:
        print(
            f"row price {run['row_price']:<6g} tokens per call {run['tokens_per_call']:.3f}  nodes per call "
            f"{run['nodes_per_call']:.2f}"
        )
    for nodes, tokens in figures["at_nodes"].items():
        print(
            f"at {nodes:>2} nodes per call: "
            f"{'outside the sweep' if tokens is None else f'{tokens:.3f} tokens per call'}"
        )


def print_jobs(figures: dict[str, Any]) -> None:
    """What machine it is about, and a line for each batch size."""
    from rich.console import Console
    from rich.table import Table

    print(
        "cost model:",
        ", ".join(f"{name} {value}" for name, value in figures["cost_model"].items())
        or "it does not say of what",
    )
    rates_and_shares = (
        "tokens/s plain",
        "tokens/s",
        "acceptance length",
        "nodes per call",
        "price",
        "steps that guess",
        "thinking",
    )
    table = Table("rows at once", "speedup", *rates_and_shares)
    for job in figures["jobs"]:
        rates = (
            f"{job['plain']['tokens_per_s']:.1f}",
            f"{job['tokens_per_s']:.1f}",
            f"{job['acceptance_length']:.2f}",
        )
        shares = (f"{100 * job[name]:.0f} %" for name in ("speculating_steps", "thinking_share"))
        price = f"{job['price']:.1f}" if job["price"] else "-"
        table.add_row(
            str(job["batch_size"]),
            f"{job['speedup']:.2f}",
            *rates,
            f"{job['nodes_per_call']:.1f}",
            price,
            *shares,
        )
    for column in table.columns:
        column.justify = "right"
    Console(width=max(Console().width, 120)).print(table)
    beyond = [
        job["batch_size"] for job in figures["jobs"] if job["batch_size"] > figures["profiled_sequences"]
    ]
    if beyond:
        print(
            f"{beyond} rows at once are more than the {figures['profiled_sequences']} that were profiled: "
            "those figures are guesses"
        )


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; bad input ends it with one line and exit code 2."""
    args = parse_args(arguments)
    try:
        figures = measure(args)
        if args.json:
            args.json.write_text(json.dumps(figures) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    print_report(figures, args.guesses)
    return 0


if __name__ == "__main__":
    sys.exit(main())
