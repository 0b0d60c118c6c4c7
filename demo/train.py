"""Trains the demo model: a 3.9 M-parameter Llama with grouped KV heads, on the Python standard library's
source.

    python -m demo.train   # 2800 steps of 4 x 1024 tokens; one to two hours on one core; resumes
    python -m demo.train --steps 50 --model DIR     # a quick one, to try things

Owns the tokenizer, the training loop and the files in demo/model/. Repeatable for one Python version, torch
version and thread count; demo/README.md says which ones made the weights that are committed.
"""

import argparse
import csv
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.corpus import DEMO, held_out_documents, training_documents

VOCAB_SIZE = 4096
CONTEXT = 1024
BATCH_SIZE = 4
PEAK_LEARNING_RATE = 3e-3
WARMUP_STEPS = 100
SEED = 20
END = "<|endoftext|>"
# A base model has no chat format; its messages are simply joined, so that the chat endpoint can be tried.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}\n{% endif %}{% endfor %}"
)


def train_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of VOCAB_SIZE tokens; id 0 ends a document."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(documents, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, model_max_length=CONTEXT
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def token_stream(tokenizer: PreTrainedTokenizerFast, documents: list[str]) -> torch.Tensor:
    """int64 [N]: the documents in a fixed shuffled order, each followed by END."""
    shuffled = random.Random(SEED).sample(documents, len(documents))
    encoded = tokenizer.backend_tokenizer.encode_batch(shuffled)
    return torch.from_numpy(np.concatenate([np.array([*e.ids, 0], dtype=np.int64) for e in encoded]))


def batch_at(stream: torch.Tensor, step: int) -> torch.Tensor:
    """int64 [BATCH_SIZE, CONTEXT]: windows of epoch-wise shuffled, epoch-wise shifted cuts of the stream."""
    per_epoch = (len(stream) - CONTEXT) // CONTEXT
    rows = []
    for index in range(step * BATCH_SIZE, (step + 1) * BATCH_SIZE):
        epoch, place = divmod(index, per_epoch)
        generator = torch.Generator().manual_seed(SEED + epoch)
        shift = int(torch.randint(CONTEXT, (1,), generator=generator))
        window = int(torch.randperm(per_epoch, generator=generator)[place])
        rows.append(stream[shift + window * CONTEXT : shift + (window + 1) * CONTEXT])
    return torch.stack(rows)


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth of the peak."""
    if step < WARMUP_STEPS:
        return PEAK_LEARNING_RATE * (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return PEAK_LEARNING_RATE * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def mean_loss(model: LlamaForCausalLM, stream: torch.Tensor, num_windows: int) -> float:
    """Mean cross-entropy per token, in nats, over the first windows of the stream."""
    windows = stream[: len(stream) // CONTEXT * CONTEXT].view(-1, CONTEXT)[:num_windows]
    with torch.no_grad():
        losses = [model(input_ids=window[None], labels=window[None]).loss.item() for window in windows]
    return sum(losses) / len(losses)


def build_model() -> LlamaForCausalLM:
    """The untrained model, from a fixed seed."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=256, intermediate_size=704, num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, tie_word_embeddings=True, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def train_on(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, batch: torch.Tensor) -> float:
    """One optimizer step on a batch of token ids; returns the loss in nats per token."""
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=batch, labels=batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.item())


def train(model_dir: Path, steps: int) -> None:
    """Trains, or goes on from the last checkpoint, and leaves the model, tokenizer and loss curve in
    model_dir.
    """
    model_dir.mkdir(parents=True, exist_ok=True)
    documents = training_documents()
    tokenizer = train_tokenizer(documents)
    tokenizer.save_pretrained(model_dir)
    stream = token_stream(tokenizer, documents)
    held_out = token_stream(tokenizer, held_out_documents())
    print(f"{len(stream) / 1e6:.2f} M training tokens, {len(held_out) / 1e6:.2f} M held out", flush=True)
    model = build_model()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1
    )
    checkpoint = model_dir / "checkpoint.pt"
    curve = []
    first_step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        curve = state["curve"]
        first_step = state["step"]
    start = time.time()
    running = None
    for step in range(first_step, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = train_on(model, optimizer, batch_at(stream, step))
        running = loss if running is None else 0.98 * running + 0.02 * loss
        if (step + 1) % 100 == 0 or step + 1 == steps:
            curve.append([step + 1, round(running, 4), round(mean_loss(model, held_out, 16), 4)])
            print(*curve[-1], f"{time.time() - start:.0f} s", flush=True)
            save_checkpoint(checkpoint, model, optimizer, curve, step + 1)
            save(model, model_dir, curve)
    print(
        f"held-out loss over all modules: {mean_loss(model, held_out, 10**6):.4f} nats per token", flush=True
    )


def save_checkpoint(
    path: Path,
    model: LlamaForCausalLM,
    optimizer: torch.optim.Optimizer,
    curve: list[list[float]],
    num_steps: int,
) -> None:
    """Writes what training goes on from; a crash while writing leaves the checkpoint before."""
    partial = path.with_suffix(".tmp")
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "curve": curve,
        "step": num_steps,
    }
    torch.save(state, partial)
    partial.replace(path)


def save(model: LlamaForCausalLM, model_dir: Path, curve: list[list[float]]) -> None:
    """Writes the weights in bf16, and the loss curve beside them."""
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.bfloat16().save_pretrained(model_dir)
    with open(model_dir / "loss.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["step", "training_loss", "held_out_loss"], *curve])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2800)
    parser.add_argument("--model", type=Path, default=DEMO / "model")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.model, arguments.steps)
