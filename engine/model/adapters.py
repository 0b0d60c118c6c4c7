"""LoRA adapters, merged into the weights at load through peft: afterwards there is one model, as fast as it
was without.

peft fills what an adapter lacks with its own start values and drops what does not fit, with a warning at
most; here both are errors.
"""

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
    wanted = {
        name for name in get_peft_model_state_dict(adapted, save_embedding_layers=False) if ".lora_" in name
    }
    given = {name for name in load_peft_weights(folder, device="cpu") if ".lora_" in name}
    if wrong := sorted(wanted ^ given):
        raise ValueError(
            f"{len(wrong)} of its weights are missing or have no place in the model, first {wrong[0]}"
        )
    _untie_adapted(model)
    return adapted.merge_and_unload(safe_merge=True)


def _untie_adapted(model: Any) -> None:
    """Gives the output layer a weight of its own where an adapter changes one of two tied embeddings.

    Merged into the weight that both share, the change of one would change the other as well.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch.nn import Parameter

    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    own, output = (getattr(layer, "base_layer", layer) for layer in layers)
    if any(isinstance(layer, BaseTunerLayer) for layer in layers) and output.weight is own.weight:
        output.weight = Parameter(output.weight.detach().clone(), requires_grad=False)
        model.config.get_text_config().tie_word_embeddings = False
