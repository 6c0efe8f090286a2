"""The step of a segmenter's training and all the state that it leaves behind: stage by stage, exactly resumable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sampling import Prefetcher
from segmenter_config import SegmenterConfig, differences
from segmenter_data import Example
from segmenter_losses import class_weights, segmentation_loss
from segmenter_sampling import SegmenterBatch, SegmenterSampler
from trainer import TrainingFailed

from IMTCore.devices import choose_precision
from IMTCore.errors import BadInput
from IMTCore.fcn import FCN, load_previous_stage, parameter_groups
from IMTCore.progress import Say, quiet
from IMTCore.vgg_weights import initial_weights

FORMAT = 1


class SegmenterTrainer:
    """A network, its optimiser, and the step; an FCN's later stages start from the earlier ones.

    Args:
        config: what is trained.
        examples: the slices to learn from; a network to predict with needs none.
        device: where it computes.
        prefetch: batches drawn ahead in the background.

    Attributes:
        step: steps done.
        phase: the network of this step: an FCN's variant, or "unet".
        initial: what the first weights were, in words to be shown beside results.
    """

    def __init__(self, config: SegmenterConfig, examples: Sequence[Example], device: torch.device, prefetch: int = 0) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.subjects = list(dict.fromkeys(example.name for example in examples))
        weights = class_weights(examples, config) if examples else None
        self.weights = None if weights is None else weights.to(device)
        self.sampler = SegmenterSampler(examples, config) if examples else None
        self.random_state = self.sampler.random_state if examples else ""
        self._prefetch, self._prefetcher = prefetch, None
        self.dtype = arithmetic(config.precision, device)
        self.step, self.initial = 0, "random"
        self._begin(config.phases[0])

    # --- Beginnings -------------------------------------------------------------------------------------------------

    def start(self, say: Say = quiet) -> None:
        """Initial weights: of --init-from, VGG-16's from the config's file, or random ones, said aloud.

        Raises:
            BadModel: as `load_vgg`. BadInput: as `start_from`.
        """
        if self.config.network == "fcn":
            path = Path(self.config.vgg) if self.config.vgg else None
            self.initial = initial_weights(self.network, path, quiet if self.config.init_from else say)
        if self.config.init_from:
            self.start_from(Path(self.config.init_from))
            say(f"initial weights: {self.initial}")

    def start_from(self, run: Path) -> None:
        """Begin with another run's network (pretraining); skips that a first FCN stage does not have yet are left out.

        Raises:
            BadInput: if it is missing, damaged, or a network of another shape.
        """
        best = run / "best.pt"
        state = read_state(best if best.exists() else run / "checkpoint.pt")
        own, theirs = self.network.state_dict(), state["network"]
        differing = [name for name, value in own.items() if name not in theirs or theirs[name].shape != value.shape]
        extra = [name for name in theirs if name not in own and not name.startswith("score_pool")]
        if differing or extra:
            raise BadInput(f"{run} holds a network of another shape than this training's ({(differing + extra)[0]}).")
        self.network.load_state_dict({name: theirs[name] for name in own})
        self.initial = f"{run.name} after {state['step']} steps on {len(state['subjects'])} subjects"

    def _begin(self, phase: str, previous: nn.Module | None = None) -> None:
        network = self.config.build(phase)
        if previous is not None:
            load_previous_stage(network, previous.cpu())
        self.phase, self.network = phase, network.to(self.device).train()
        config = self.config
        if isinstance(self.network, FCN):
            groups = parameter_groups(self.network, config.learning_rate, config.weight_decay)
        else:
            parameters = list(self.network.parameters())
            groups = [{"params": parameters, "lr": config.learning_rate, "weight_decay": config.weight_decay}]
        self.rates = [group["lr"] for group in groups]
        if config.optimiser == "sgd":
            self.optimiser: torch.optim.Optimizer = torch.optim.SGD(groups, momentum=config.momentum)
        else:
            self.optimiser = torch.optim.Adam(groups)

    # --- The step ---------------------------------------------------------------------------------------------------

    def next_batch(self) -> SegmenterBatch:
        """The next batch on the device; draws further ones meanwhile."""
        if self._prefetcher is None:
            pinned = self.device.type == "cuda"
            draw = (lambda: self.sampler.draw().pinned()) if pinned else self.sampler.draw
            self._prefetcher = Prefetcher(draw, self._prefetch)
        return self._prefetcher.next().to(self.device)

    def run_step(self) -> dict[str, float]:
        """One batch: its loss, its terms and the share of pixels that were right.

        Raises:
            TrainingFailed: if the loss is not finite.
        """
        batch = self.next_batch()
        if self.config.schedule == "cosine":
            factor = 0.5 + 0.5 * math.cos(math.pi * self.step / self.config.total_steps)
            for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
                group["lr"] = rate * factor
        half = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype if half else torch.bfloat16, enabled=half):
            logits = self.network(batch.images)
        logits = logits.float()
        terms = segmentation_loss(logits, batch.classes, self.config, self.weights)
        loss = sum(terms.values())
        if not torch.isfinite(loss):
            raise TrainingFailed(
                f"The loss is {loss.item()} at step {self.step + 1} ({batch.origin}): nothing was saved since the last checkpoint. "
                "Lower --learning-rate and choose another --output."
            )
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.step += 1
        self.random_state = batch.random_state
        values = {"loss": loss.item(), "accuracy": (logits.argmax(1) == batch.classes).float().mean().item()}
        if len(terms) > 1:
            values |= {name: value.item() for name, value in terms.items()}
        stage, within = divmod(self.step, self.config.steps)
        if within == 0 and stage < len(self.config.phases):
            self._begin(self.config.phases[stage], self.network)
        return values

    def close(self) -> None:
        """End the thread that draws ahead."""
        if self._prefetcher is not None:
            self._prefetcher.close()

    # --- The state --------------------------------------------------------------------------------------------------

    def weights_state(self) -> dict[str, Any]:
        """What a prediction needs: the network, and what it is."""
        return {
            "kind": "segmenter",
            "format": FORMAT,
            "config": asdict(self.config),
            "subjects": self.subjects,
            "step": self.step,
            "phase": self.phase,
            "initial": self.initial,
            "network": self.network.state_dict(),
        }

    def state(self) -> dict[str, Any]:
        """All that a bit-identical resume needs."""
        state = {**self.weights_state(), "optimiser": self.optimiser.state_dict(), "torch_random": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["device_random"] = torch.cuda.get_rng_state(self.device)
        return {**state, "numpy_random": self.random_state}

    def load(self, path: Path) -> dict[str, Any]:
        """Go on from a checkpoint of the same training; its whole state.

        Raises:
            BadInput: if it is damaged, or of another training.
        """
        state = read_state(path)
        differing = differences(SegmenterConfig.from_record(state["config"], str(path)), self.config)
        if state["subjects"] != self.subjects:
            differing.append("training subjects")
        if differing or "optimiser" not in state:
            raise BadInput(f"{path} is of another experiment (differs in {', '.join(differing)}). Choose another --output.")
        self.step, self.initial = state["step"], state["initial"]
        self._begin(state["phase"])
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["torch_random"])
        if self.device.type == "cuda" and "device_random" in state:
            torch.cuda.set_rng_state(state["device_random"], self.device)
        self.random_state = self.sampler.random_state = state["numpy_random"]
        return state


def arithmetic(precision: str, device: torch.device) -> torch.dtype:
    """The number type of the step: "auto" is bf16 on a GPU that has it, else fp32."""
    if precision != "auto":
        return choose_precision(precision, device)
    chosen = choose_precision("auto", device) if device.type == "cuda" else torch.float32
    return chosen if chosen == torch.bfloat16 else torch.float32


def read_state(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU; nothing is unpickled but tensors.

    Raises:
        BadInput: if it is missing, damaged, or of another form.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its reader meets
        raise BadInput(f"{path} cannot be read as a checkpoint ({type(error).__name__}). Choose another, or delete it to train anew.") from error
    if not isinstance(state, dict) or state.get("kind") != "segmenter" or state.get("format") != FORMAT:
        raise BadInput(f"{path} is no checkpoint of a segmenter of this version. Choose another --output, or delete it to train anew.")
    return state
