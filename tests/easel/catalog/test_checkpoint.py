import json

import pytest

from easel.catalog.checkpoint import lora_targets, zimage_targets

TINY = {
    "dim": 64,
    "n_heads": 2,
    "n_kv_heads": 2,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "axes_dims": [8, 12, 12],
    "cap_feat_dim": 48,
    "in_channels": 8,
}


def test_the_table_from_the_configuration_is_the_modules_of_the_model():
    import torch
    from diffusers import ZImageTransformer2DModel

    model = ZImageTransformer2DModel(**TINY)
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert zimage_targets(dict(model.config)) == {name: list(m.weight.shape) for name, m in linear.items()}


def test_a_folder_without_a_transformer_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a diffusers checkpoint"):
        lora_targets(str(tmp_path))


def test_another_architecture_is_refused(tmp_path):
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({"_class_name": "FluxTransformer2DModel"}))
    with pytest.raises(ValueError, match="FluxTransformer2DModel"):
        lora_targets(str(tmp_path))
