"""A stop check that sees token by token (rows/stop_strings.py) against one that decodes all tokens so far, by
kinds of tokens and by length.

    python -m benchmarks.bench_detokenizer                    # the demo model's tokenizer
    python -m benchmarks.bench_detokenizer --model FOLDER     # one with byte tokens, such as Llama 2's

CPU time of one output. Twice the tokens should take our check twice the time: `growth` is the ratio of the
time per token at the two lengths. The two must agree that no token ends the output.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import alternate, environment, ratio
from benchmarks.workloads import DEMO
from rows.stop_strings import StopStringCheck
from rows.text_codec import TextCodec

STOP = "\x00never\x00"
LENGTHS = (1000, 2000)


def outputs(codec: TextCodec) -> dict[str, list[int]]:
    """The tokens that are repeated, by kind: those that the tokenizer has."""
    tokenizer = codec.tokenizer
    kinds = {"ordinary": codec.encode(["def add(a, b): return a + b\n"])[0], "unknown": [10**6]}
    if tokenizer.all_special_ids:
        kinds["special"] = tokenizer.all_special_ids[:1]
    by_name = {"byte tokens": "<0xE4>", "half characters": "ä"}  # the second is byte 0xE4 in byte-level BPE
    vocabulary = tokenizer.get_vocab()
    return kinds | {kind: [vocabulary[name]] for kind, name in by_name.items() if name in vocabulary}


def ours(codec: TextCodec, token_ids: list[int]) -> Callable[[], dict[str, Any]]:
    """Our check of a whole output."""

    def run() -> dict[str, Any]:
        check = StopStringCheck((STOP,), codec.tokenizer)
        return {"stops": sum(map(check, token_ids))}

    return run


def decoding_all(codec: TextCodec, token_ids: list[int]) -> Callable[[], dict[str, Any]]:
    """What decodes everything at every token."""
    decode = codec.tokenizer.backend_tokenizer.decode
    return lambda: {"stops": sum(STOP in decode(token_ids[:end]) for end in range(1, len(token_ids) + 1))}


def main() -> None:
    """One line per kind of tokens, then one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(DEMO / "model"))
    parser.add_argument("--alternations", type=int, default=7)
    arguments = parser.parse_args()
    codec = TextCodec(arguments.model)
    results = {}
    for kind, repeated in outputs(codec).items():
        texts = [(repeated * length)[:length] for length in LENGTHS]
        runs = alternate(
            {
                "all": decoding_all(codec, texts[0]),
                "short": ours(codec, texts[0]),
                "long": ours(codec, texts[1]),
            },
            LENGTHS[0],
            arguments.alternations,
        )
        assert not any(run.counts["stops"] for run in runs.values())
        found = ratio(runs["all"].cpu_s, runs["short"].cpu_s)
        pairs = zip(runs["long"].cpu_s, runs["short"].cpu_s, strict=True)
        growth = round(statistics.median(long / short for long, short in pairs) * LENGTHS[0] / LENGTHS[1], 2)
        results[kind] = {**found, "growth": growth}
        spread = f"[{found['low']:.0f}, {found['high']:.0f}]"
        print(f"{kind:16} {found['median']:.0f}x {spread} at {LENGTHS[0]} tokens, growth {growth}")
    name = "/".join(Path(arguments.model).parts[-2:])
    told = {"title": "stop check", "model": name, "alternations": arguments.alternations}
    print(json.dumps({**told, "ratio_cpu": results, **environment()}))


if __name__ == "__main__":
    main()
