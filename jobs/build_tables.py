"""Computes a model's draft tables ahead of a job and says where they lie.

    python jobs/build_tables.py --model DIR [--out DIR] [--num_successors 25] [--prefix_ids ID ...]

Jobs do this by themselves; it serves to look at the tables, to replay with them, or to fill a shared folder
beforehand.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from drafting.config import SOURCES


def parse_args(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="a folder in Hugging Face format, or a hub name"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="tables of all models, one folder each; default: this user's cache",
    )
    parser.add_argument("--num_successors", type=int, default=25, help="successors kept of each token")
    parser.add_argument(
        "--prefix_ids",
        type=int,
        nargs="*",
        default=[],
        metavar="ID",
        help="tokens before each one, such as BOS, to compare",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; bad input ends it with one line and exit code 2."""
    args = parse_args(arguments)
    if args.num_successors < 1:
        print(
            f"build_tables: --num_successors is {args.num_successors}; it must be at least 1", file=sys.stderr
        )
        return 2
    # Here and not above: importing a job must stay cheap, and these bring torch.
    from engine.config import ModelConfig
    from engine.draft_tables import default_cache, load_or_build_tables, model_fingerprint
    from engine.model.loading import load_model

    try:
        config = ModelConfig(path=args.model)
        model = load_model(config).model
        fingerprint = model_fingerprint(config)
        cache = args.out or default_cache()
        tables = load_or_build_tables(
            model, fingerprint, cache, SOURCES, args.num_successors, tuple(args.prefix_ids)
        )
    except (ValueError, OSError) as error:
        print(f"build_tables: {error}", file=sys.stderr)
        return 2
    for name in ("bigram", "unigram"):
        table = getattr(tables, name)
        path = cache / fingerprint / f"{name}.npz"
        print(f"{path}: {' x '.join(map(str, table.shape))}" if table is not None else f"{name}: not built")
    return 0


if __name__ == "__main__":
    sys.exit(main())
