"""Makes the folders beside this file: small random models as transformers writes them, with what it computes of them.

    python make.py     needs torch and transformers; wrote them with torch 2.13.0 and transformers 5.24.0

expected.safetensors of each holds its inputs and its outputs.
"""

from pathlib import Path

import numpy as np
import torch
import transformers as t
from safetensors.numpy import save_file

HERE = Path(__file__).parent
ENCODER = {"num_hidden_layers": 1, "num_attention_heads": 3, "hidden_size": 12, "intermediate_size": 14}
IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def models():
    yield "gpt2", t.GPT2LMHeadModel(t.GPT2Config(vocab_size=20, n_positions=10, n_embd=6, n_layer=2, n_head=3, **IDS))
    yield "llama", t.LlamaForCausalLM(t.LlamaConfig(
        vocab_size=20, max_position_embeddings=10, hidden_size=16, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=20, **IDS))  # fmt: skip
    yield "bert", t.BertForPreTraining(t.BertConfig(vocab_size=20, max_position_embeddings=10, **ENCODER))
    yield "distilbert", t.DistilBertForSequenceClassification(t.DistilBertConfig(
        vocab_size=20, max_position_embeddings=10, n_layers=1, n_heads=3, dim=12, hidden_dim=14, num_labels=4))
    yield "vit", t.ViTForImageClassification(t.ViTConfig(image_size=6, patch_size=2, num_labels=5, **ENCODER))


def main():
    for name, model in models():
        torch.manual_seed(len(name))
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.2 * torch.randn(weight.shape))
        model.eval().save_pretrained(HERE / name)
        (HERE / name / "generation_config.json").unlink(missing_ok=True)
        rng = np.random.default_rng(len(name))
        if name == "vit":
            given = {"pixel_values": rng.normal(size=(2, 3, 6, 6)).astype(np.float32)}
        else:
            given = {"input_ids": rng.integers(0, 20, (3, 8))}
        if "bert" in name:
            given["attention_mask"] = (np.arange(8)[None] < np.array([[8], [5], [1]])).astype(int)
        if name == "bert":
            given["token_type_ids"] = rng.integers(0, 2, (3, 8))
        found = model(**{key: torch.tensor(x) for key, x in given.items()})
        outputs = {key: x.detach().numpy() for key, x in found.items() if isinstance(x, torch.Tensor)}
        save_file(given | outputs, HERE / name / "expected.safetensors")


if __name__ == "__main__":
    main()
