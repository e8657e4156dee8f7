"""Networks of transformers in places where they had not been tried: resized, sharded, padded; and saved without their ties."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")
from di4c.contracts import Draws, strict_load
from di4c.engine.shared_base import share_base
from di4c.testing import check_head
from di4c_plugins.heads.token import Token
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.teachers.hf_masked_lm import HFMaskedLM
from tests.plugins.teachers.hf_folders import BERT, MASK, VOCABULARY, bert_folder, llada_folder
from tests.plugins.teachers.test_hf_masked_lm import D, llada_logits, logits_of


@pytest.mark.parametrize("added", [3, 9])
def test_adapters_on_a_bert_whose_vocabulary_was_resized(tmp_path, added):
    """Rows behind the old vocabulary are states like any other, and the base's digest holds them."""
    model = bert_folder(tmp_path)
    rows = len(VOCABULARY) + added
    model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[-added:] = torch.randn(added, BERT["hidden_size"])
        model.get_output_embeddings().bias[-added:] = torch.randn(added)
    model.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join([*VOCABULARY, *(f"new{i}" for i in range(added))]) + "\n")
    teacher = HFMaskedLM(Absorbing(rows, mask_index=MASK), D, path=str(tmp_path)).freeze()
    x = Draws(0, count=2).integers(rows, D)
    with torch.no_grad():
        expected = model.eval()(input_ids=x).logits
    torch.testing.assert_close(logits_of(teacher, x), expected, rtol=1e-5, atol=1e-5)
    backbone = share_base(teacher, rank=2, targets=["query", "value"], alpha=4.0)
    head = Token(1, backbone)
    check_head(head, backbone, latent_dim=1, teacher=teacher)
    saved = {name: value.clone() for name, value in backbone.state_dict().items()}
    strict_load(backbone, saved, "adapters")


def test_llada_attends_to_the_end_tokens_that_pad_a_text(tmp_path):
    """LLaDA is trained on texts padded with the end token, which it attends to: no position is masked for being one."""
    weights = llada_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    end = 5
    (tmp_path / "config.json").write_text(json.dumps({**config, "pad_token_id": end, "eos_token_id": end}))
    teacher = HFMaskedLM(Absorbing(22, mask_index=20), D, path=str(tmp_path))
    x = torch.tensor([[3, 7, 20, 9, end, end, end, end], [20] * 4 + [end] * 4])
    found = logits_of(teacher, x)
    torch.testing.assert_close(found, llada_logits(weights, x)[..., :22], rtol=1e-4, atol=1e-4)
    shorter = x.clone()
    shorter[:, 4:] = 6
    assert (logits_of(teacher, shorter)[:, :4] - found[:, :4]).abs().max() > 1e-3
    student = teacher.student_backbone()
    student(x, torch.ones(2)).square().sum().backward()
    assert student.network.get_input_embeddings().weight.grad[end].abs().sum() > 0


def test_a_row_that_pads_is_kept_by_a_roberta(tmp_path: Path):
    """A padding row's weights are read, and used where the token stands in the data."""
    config = {
        "model_type": "roberta", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 34, "pad_token_id": 1, "mask_token_id": 7,
    }  # fmt: skip
    teacher = HFMaskedLM(Absorbing(40, mask_index=7), D, config=config).freeze()
    x = torch.full((1, D), 5)
    padded = x.clone()
    padded[0, -1] = 1
    assert logits_of(teacher, x).isfinite().all() and logits_of(teacher, padded).isfinite().all()
    assert teacher.student_backbone().network.get_input_embeddings().padding_idx == 1
