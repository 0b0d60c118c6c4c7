"""LoRA adapters, merged into the weights at load through peft: afterwards there is one model, as fast as it
was without.

peft fills what an adapter lacks with its own start values and drops what does not fit, with a warning at
most; here both are errors.
"""

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.config import ModelConfig
from engine.model.hub import ADAPTER_WEIGHTS, local_folder

EXTRA = "in the project's folder: pip install -c constraints.txt -e '.[lora]'"


def merge_adapter(model: Any, config: ModelConfig) -> Any:
    """The model with config's adapter in its weights; raises ValueError for one that is no LoRA adapter of
    this model.
    """
    assert config.adapter
    if find_spec("peft") is None:
        raise ValueError(f"model.adapter needs peft; {EXTRA}")
    folder = local_folder(config.adapter, config.adapter_revision, ADAPTER_WEIGHTS, setting="model.adapter")
    check_adapter(folder, config.adapter, getattr(model, "is_quantized", False))
    try:
        return _merged(model, str(folder))
    except Exception as error:  # peft, safetensors and torch raise kinds of their own for what does not fit
        why = " ".join(str(error).split())[:300]
        raise ValueError(
            f"model.adapter {config.adapter!r} does not fit {type(model).__name__}: {why}; "
            "use one made for this model"
        ) from error


def check_adapter(folder: Path, name: str, is_quantized: bool) -> None:
    """Raises ValueError for a folder that holds no adapter, and for a quantised model (is_quantized)."""
    if is_quantized:
        raise ValueError(
            "model.adapter cannot be merged into a quantised checkpoint; use the model that it was made from"
        )
    if not (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"model.adapter {name!r} has no adapter_config.json; give a LoRA adapter that peft has saved"
        )


def _merged(model: Any, folder: str) -> Any:
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    kind = str(PeftConfig.from_pretrained(folder).peft_type).rpartition(".")[2]
    if kind != "LORA":
        raise ValueError(f"it is of the kind {kind}, and only LoRA can be merged")
    adapted = PeftModel.from_pretrained(model, folder)
    given = set(load_peft_weights(folder, device="cpu"))
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    # peft also saves embeddings that it does not train, beside those that an adapter changes.
    allowed = wanted | set(get_peft_model_state_dict(adapted, save_embedding_layers=True))
    if wrong := sorted((wanted - given) | (given - allowed)):
        raise ValueError(
            f"{len(wrong)} of its weights are missing or have no place in the model, first {wrong[0]}"
        )
    _give_own_weights(model)
    merged = adapted.merge_and_unload(safe_merge=True)
    if merged.get_output_embeddings().weight is not merged.get_input_embeddings().weight:
        merged.config.get_text_config().tie_word_embeddings = False
    return merged


def _give_own_weights(model: Any) -> None:
    """Gives every layer that an adapter changes weights that no other layer uses.

    Tied embeddings share a weight, and so do layers that an adapter repeats (layer_replication). Merged into
    a weight that several layers share, the change of one would change the others as well.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper
    from torch.nn import Parameter

    tuners = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    if any(isinstance(getattr(tuner, "base_layer", None), AuxiliaryTrainingWrapper) for tuner in tuners):
        raise ValueError(
            "it changes the output layer by LoRA and by single tokens too, as the embeddings are tied, and "
            "both cannot be merged"
        )
    users = Counter(id(weight) for module in model.modules() for weight in module.parameters(recurse=False))
    for layer in [tuner.get_base_layer() for tuner in tuners]:
        for name, weight in list(layer.named_parameters(recurse=False)):
            if users[id(weight)] > 1:
                setattr(layer, name, Parameter(weight.detach().clone(), requires_grad=False))
