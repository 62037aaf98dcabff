"""Writes a model folder of random bf16 weights with a family's shape: make_model.py SHAPE FOLDER [LAYERS].

Needs the standard library only. No tokenizer: it takes token ids. LAYERS: the first layers only, with the same weights, as a draft.
Products of the layers past the fourth add a sixteenth to the residual stream, so that such a draft often agrees with the whole model.
"""
import json
import random
import struct
import sys
import zlib
from typing import BinaryIO

SHAPES = {  # hidden, intermediate, layers, heads, kv heads, head dim, vocabulary, tied
    "qwen3-0.6b": (1024, 3072, 28, 16, 8, 128, 151936, True),
    "qwen3-1.7b": (2048, 6144, 28, 16, 8, 128, 151936, True),
    "qwen3-8b": (4096, 12288, 36, 32, 8, 128, 151936, False),
    "tiny": (64, 128, 6, 2, 1, 32, 512, True),
}
NUM_LOUD_LAYERS = 4
PERIOD = 4_194_319  # values, a prime: rows of a matrix differ
ONE = 0x3F80  # bf16


def noise(exponent: int) -> bytes:
    """PERIOD bf16 values of both signs, of magnitudes from 4^exponent to 4^(exponent + 1)."""
    generator = random.Random(7)
    high = (127 + 2 * exponent) // 2
    values = bytearray(2 * PERIOD)
    values[0::2] = generator.randbytes(PERIOD)
    values[1::2] = generator.randbytes(PERIOD).translate(bytes(high | (byte & 0x80) for byte in range(256)))
    return bytes(values)


def exponent_for(num_cols: int, is_loud: bool) -> int:
    """The exponent of `noise` whose root mean square, 2.4 * 4^exponent, is nearest to num_cols^-1/2, or a sixteenth of it."""
    target = num_cols**-0.5 / (1 if is_loud else 16) / 2.4
    return min(range(-8, 1), key=lambda exponent: max(4.0**exponent / target, target / 4.0**exponent))


def write_values(file: BinaryIO, name: str, num_bytes: int, values: bytes) -> None:
    """Repeats `values`, from a place that the name decides."""
    begin = zlib.crc32(name.encode()) % PERIOD * 2
    while num_bytes > 0:
        piece = memoryview(values)[begin : begin + num_bytes]
        num_bytes -= file.write(piece)
        begin = 0


def shapes_of(name: str, num_layers: int) -> dict[str, tuple[int, ...]]:
    hidden, intermediate, _, heads, kv_heads, head_dim, vocab, tied = SHAPES[name]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not tied:
        shapes["lm_head.weight"] = (vocab, hidden)
    for i in range(num_layers):
        layer = {
            "self_attn.q_proj": (heads * head_dim, hidden),
            "self_attn.k_proj": (kv_heads * head_dim, hidden),
            "self_attn.v_proj": (kv_heads * head_dim, hidden),
            "self_attn.o_proj": (hidden, heads * head_dim),
            "mlp.gate_proj": (intermediate, hidden),
            "mlp.up_proj": (intermediate, hidden),
            "mlp.down_proj": (hidden, intermediate),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
            "self_attn.q_norm": (head_dim,),
            "self_attn.k_norm": (head_dim,),
        }
        shapes |= {f"model.layers.{i}.{key}.weight": shape for key, shape in layer.items()}
    return shapes


def write_tensors(path: str, shapes: dict[str, tuple[int, ...]]) -> None:
    sizes = {name: 2 * (shape[0] if len(shape) == 1 else shape[0] * shape[1]) for name, shape in shapes.items()}
    header, offset = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + sizes[name]]}
        offset += sizes[name]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    noises: dict[int, bytes] = {}
    with open(path, "wb", buffering=0) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            if len(shape) == 1:
                file.write(struct.pack("<H", ONE) * shape[0])
                continue
            layer = int(name.split(".")[2]) if name.startswith("model.layers.") else 0
            adds = "o_proj" in name or "down_proj" in name
            exponent = exponent_for(shape[1], layer < NUM_LOUD_LAYERS or not adds)
            if exponent not in noises:
                noises[exponent] = noise(exponent)
            write_values(file, name, sizes[name], noises[exponent])


def main() -> None:
    name, folder = sys.argv[1:3]
    hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, tied = SHAPES[name]
    num_layers = int(sys.argv[3]) if len(sys.argv) > 3 else layers
    write_tensors(f"{folder}/model.safetensors", shapes_of(name, num_layers))
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": num_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
        "max_position_embeddings": 40960,
        "hidden_act": "silu",
        "attention_bias": False,
        "torch_dtype": "bfloat16",
        "eos_token_id": 151645 if vocab > 151645 else 2,
    }
    with open(f"{folder}/config.json", "w") as file:
        json.dump(config, file)


if __name__ == "__main__":
    main()
