"""Decode and prefill of the same shapes through PyTorch, eager and compiled: torch_decoder.py SHAPES [BATCHES [PREFILLS]].

A decoder of Qwen3's shape with a static KV cache, in bf16. Compiled: torch.compile of the layer and of the head; a decode step is
replayed from a CUDA graph. Prints the lines that gpu-table.mjs reads.
"""
import json
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from make_model import SHAPES

CONTEXT_LEN = 512
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Weights = dict[str, torch.Tensor]


def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, weight.shape, weight, 1e-6)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x [batch, heads, tokens, head_dim]; cos, sin [tokens, head_dim / 2]."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def layer(x: torch.Tensor, w: Weights, keys: torch.Tensor, values: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    """x [batch, tokens, hidden], the last tokens of the context; keys, values [batch, kv heads, context, head_dim]."""
    batch, num_tokens, _ = x.shape
    kv_heads, head_dim = keys.shape[1], keys.shape[3]
    qkv = F.linear(norm(x, w["in_norm"]), w["qkv"]).view(batch, num_tokens, -1, head_dim).transpose(1, 2)
    q, k, v = qkv.split((qkv.shape[1] - 2 * kv_heads, kv_heads, kv_heads), 1)
    q, k = rotate(norm(q, w["q_norm"]), *rope), rotate(norm(k, w["k_norm"]), *rope)
    keys[:, :, -num_tokens:] = k
    values[:, :, -num_tokens:] = v
    out = F.scaled_dot_product_attention(q, keys, values, is_causal=num_tokens > 1, enable_gqa=True)
    x = x + F.linear(out.transpose(1, 2).reshape(batch, num_tokens, -1), w["o"])
    gate, up = F.linear(norm(x, w["post_norm"]), w["gate_up"]).chunk(2, -1)
    return x + F.linear(F.silu(gate) * up, w["down"])


def head(x: torch.Tensor, weight: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The likeliest next token of each sequence, [batch, 1]."""
    return F.linear(norm(x[:, -1:], weight), table).argmax(-1)


class Decoder:
    def __init__(self, name: str) -> None:
        hidden, intermediate, num_layers, heads, kv_heads, head_dim, vocab, tied = SHAPES[name]
        self.kv_heads, self.head_dim, self.vocab = kv_heads, head_dim, vocab

        def random(*shape: int) -> torch.Tensor:
            return torch.empty(shape, dtype=torch.bfloat16, device=DEVICE).normal_(0, shape[-1] ** -0.5)

        def ones(width: int) -> torch.Tensor:
            return torch.ones(width, dtype=torch.bfloat16, device=DEVICE)

        self.embedding = random(vocab, hidden)
        self.table = self.embedding if tied else random(vocab, hidden)
        self.norm = ones(hidden)
        self.layers = [
            {
                "in_norm": ones(hidden),
                "qkv": random((heads + 2 * kv_heads) * head_dim, hidden),
                "q_norm": ones(head_dim),
                "k_norm": ones(head_dim),
                "o": random(hidden, heads * head_dim),
                "post_norm": ones(hidden),
                "gate_up": random(2 * intermediate, hidden),
                "down": random(hidden, intermediate),
            }
            for _ in range(num_layers)
        ]

    def step(self, batch: int, num_tokens: int, context_len: int, is_compiled: bool) -> Callable[[], None]:
        """One pass over the last `num_tokens` tokens of each sequence, which leaves the next tokens where it reads its own."""
        one_layer, one_head = (compiled_layer, compiled_head) if is_compiled else (layer, head)
        token_ids = torch.randint(self.vocab, (batch, num_tokens), device=DEVICE)
        shape = (batch, self.kv_heads, context_len, self.head_dim)
        caches = [[torch.zeros(shape, dtype=torch.bfloat16, device=DEVICE) for _ in range(2)] for _ in self.layers]
        frequencies = 1e6 ** (-torch.arange(0, self.head_dim, 2, device=DEVICE) / self.head_dim)
        angles = torch.arange(context_len - num_tokens, context_len, device=DEVICE)[:, None] * frequencies
        rope = torch.stack((angles.cos(), angles.sin())).bfloat16()

        def run() -> None:
            x = F.embedding(token_ids, self.embedding)
            for weights, (keys, values) in zip(self.layers, caches):
                x = one_layer(x, weights, keys, values, rope)
            token_ids[:, -1:] = one_head(x, self.norm, self.table)

        return run


def as_graph(run: Callable[[], None]) -> Callable[[], None]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def seconds_of(run: Callable[[], None]) -> float:
    """Per run: the median of three measurements of about 0.1 s each, after one to warm up."""
    run()
    synchronize()
    times, count = [], 1
    for _ in range(4):
        start = time.perf_counter()
        for _ in range(count):
            run()
        synchronize()
        times.append((time.perf_counter() - start) / count)
        count = max(1, min(100, int(0.1 / times[0])))
    return sorted(times[1:])[1]


def main() -> None:
    shapes = sys.argv[1].split(",")
    batches = [int(batch) for batch in (sys.argv[2] if len(sys.argv) > 2 else "1,8,32,256").split(",")]
    prefills = [int(length) for length in (sys.argv[3] if len(sys.argv) > 3 else "512,4096").split(",")]
    print(f"torch {torch.__version__} on {torch.cuda.get_device_name() if DEVICE == 'cuda' else 'cpu'}", flush=True)
    passes = [(f"decode {batch}", batch, 1, CONTEXT_LEN) for batch in batches]
    passes += [(f"prefill {length}", 1, length, length) for length in prefills]
    for shape in shapes:
        decoder = Decoder(shape)
        for case, batch, num_tokens, context_len in passes:
            for is_compiled in (False, True):
                run = decoder.step(batch, num_tokens, context_len, is_compiled)
                if is_compiled and num_tokens == 1 and DEVICE == "cuda":
                    run = as_graph(run)
                rate = batch * num_tokens / seconds_of(run)
                system = "torch compiled" if is_compiled else "torch eager"
                result = {"shape": shape, "case": case, "system": system, "tokensPerSecond": rate, "share": None}
                print("result", json.dumps(result), flush=True)
        del decoder, run
        if DEVICE == "cuda":
            torch.cuda.empty_cache()


torch._dynamo.config.recompile_limit = 64
compiled_layer = torch.compile(layer, dynamic=False, fullgraph=True)
compiled_head = torch.compile(head, dynamic=False, fullgraph=True)
if __name__ == "__main__":
    with torch.inference_mode():
        main()
