"""Writes a model folder of random bf16 weights with a family's shape: make_model.py SHAPE FOLDER. No tokenizer: it takes token ids."""
import json
import sys

import torch
from safetensors.torch import save_file

SHAPES = {  # hidden, intermediate, layers, heads, kv heads, head dim, vocabulary, tied
    "qwen3-0.6b": (1024, 3072, 28, 16, 8, 128, 151936, True),
    "qwen3-1.7b": (2048, 6144, 28, 16, 8, 128, 151936, True),
    "qwen3-8b": (4096, 12288, 36, 32, 8, 128, 151936, False),
    "tiny": (256, 512, 2, 4, 2, 64, 1024, True),
}


def main() -> None:
    name, folder = sys.argv[1:3]
    hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, tied = SHAPES[name]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(7)

    def random(*shape: int) -> torch.Tensor:
        scale = shape[-1] ** -0.5
        values = torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(0, scale, generator=generator)
        return values.cpu()

    tensors = {"model.embed_tokens.weight": random(vocab, hidden), "model.norm.weight": torch.ones(hidden, dtype=torch.bfloat16)}
    if not tied:
        tensors["lm_head.weight"] = random(vocab, hidden)
    for i in range(layers):
        p = f"model.layers.{i}."
        for key, rows, cols in [
            ("self_attn.q_proj", heads * head_dim, hidden),
            ("self_attn.k_proj", kv_heads * head_dim, hidden),
            ("self_attn.v_proj", kv_heads * head_dim, hidden),
            ("self_attn.o_proj", hidden, heads * head_dim),
            ("mlp.gate_proj", intermediate, hidden),
            ("mlp.up_proj", intermediate, hidden),
            ("mlp.down_proj", hidden, intermediate),
        ]:
            tensors[p + key + ".weight"] = random(rows, cols)
        for key, width in [
            ("input_layernorm", hidden),
            ("post_attention_layernorm", hidden),
            ("self_attn.q_norm", head_dim),
            ("self_attn.k_norm", head_dim),
        ]:
            tensors[p + key + ".weight"] = torch.ones(width, dtype=torch.bfloat16)
    save_file(tensors, f"{folder}/model.safetensors")
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
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


main()
