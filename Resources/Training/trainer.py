"""The step that alternates discriminator and generator, and all the state that it leaves behind."""

from __future__ import annotations

import math
import time
from dataclasses import asdict

import torch
from torch import Tensor, nn

from experiment import Config
from losses import TERMS, real_or_fake, reconstruction, was_acquired
from processes import Processes
from sampling import Batch, Prefetcher, Sampler
from training_data import Pair

from IMTCore.devices import choose_precision
from IMTCore.errors import ImtError
from IMTCore.networks import PatchDiscriminator, UNetGenerator, initialise


class TrainingFailed(ImtError):
    """The training cannot go on: the message names the step and the subject."""


class Trainer:
    """The two networks, their optimisers and the step that alternates them.

    Attributes:
        step: steps done.
        seconds: what they took by the budget's clock.
        generator, discriminator: the networks; the discriminator is None if nothing is adversarial.
    """

    def __init__(
        self,
        config: Config,
        pairs: list[Pair],
        processes: Processes | None = None,
        channels_last: bool = False,
        prefetch: int = 0,
    ) -> None:
        self.processes = processes or Processes(torch.device("cpu"))
        self.device = self.processes.device
        self.config, self.channels_last = config, channels_last
        self.dtype = choose_precision(config.precision, self.device)
        torch.manual_seed(config.seed)  # every process makes the same networks
        self.generator = self._placed(config.generator())
        self.average = config.generator().to(self.device).requires_grad_(False) if config.ema > 0 else None
        if self.average is not None:
            self.average.load_state_dict(self.generator.state_dict())
        discriminator = config.discriminator()
        self.discriminator = None if discriminator is None else self._placed(discriminator)
        self._generate = self.processes.parallel(self.generator)
        self._judge = None if self.discriminator is None else self.processes.parallel(self.discriminator)
        if self.processes.rank:
            torch.manual_seed(config.seed + 1_000_003 * self.processes.rank)  # its own dropout
        self.adam_g = self._adam(self.generator)
        self.adam_d = None if self.discriminator is None else self._adam(self.discriminator)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.sampler = Sampler(pairs, config, self.processes.rank)
        self._prefetch, self._prefetcher = prefetch, None
        self.random_state = self.sampler.random_state
        self.step, self.seconds = 0, 0.0

    def _placed(self, network: nn.Module) -> nn.Module:
        if isinstance(network, UNetGenerator | PatchDiscriminator):  # the others bring their own initial weights
            initialise(network)
        network.to(self.device)
        return network.to(memory_format=torch.channels_last) if self.channels_last else network

    def _adam(self, network: nn.Module) -> torch.optim.Adam:
        fused = self.device.type in ("cpu", "cuda")
        return torch.optim.Adam(network.parameters(), self.config.learning_rate, (self.config.beta1, 0.999), fused=fused)

    # --- The schedule -----------------------------------------------------------------------------------------------

    @property
    def done(self) -> float:
        """The share of the training that is done, 0 to 1: of the steps, or of the time budget if that is further."""
        budget = self.config.budget_s
        return min(1.0, max(self.step / self.config.steps, self.seconds / budget if budget else 0.0))

    def learning_rate(self) -> float:
        """The rate of this step under the schedule: constant, linear (from half-way to 0) or cosine (to 0)."""
        done = self.done
        factor = {"constant": 1.0, "linear": min(1.0, 2 * (1 - done)), "cosine": 0.5 + 0.5 * math.cos(math.pi * done)}
        return self.config.learning_rate * factor[self.config.schedule]

    # --- The step ---------------------------------------------------------------------------------------------------

    def next_batch(self) -> Batch:
        """The next batch on the device; draws further ones meanwhile."""
        if self._prefetcher is None:
            pinned = self.device.type == "cuda"
            draw = (lambda: self.sampler.draw().pinned()) if pinned else self.sampler.draw
            self._prefetcher = Prefetcher(draw, self._prefetch)
        return self._prefetcher.next().to(self.device, self.channels_last)

    def run_step(self) -> dict[str, float]:
        """One alternation on the next batch: its losses by name.

        Raises:
            TrainingFailed: if a loss is not finite.
        """
        clock = time.process_time if self.config.budget_clock == "cpu" else time.perf_counter
        start = clock()
        batch = self.next_batch()
        losses = self.learn(batch)
        values = torch.stack([value.float() for value in losses.values()]).tolist()  # waits for a GPU, once a step
        self.step += 1
        self.seconds += clock() - start
        if self.config.budget_s:  # all processes must stop at the same step
            self.seconds = self.processes.agree(self.seconds)
        wrong = [name for name, value in zip(losses, values, strict=True) if not math.isfinite(value)]
        if wrong:
            raise TrainingFailed(
                f"Training failed at step {self.step}: loss {', '.join(wrong)} is not a finite number on {batch.origin}. "
                "The last checkpoint is as it was. Look at that subject's images, or start anew with a smaller --learning-rate."
            )
        self.random_state = batch.random_state
        return dict(zip(losses, values, strict=True))

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """One alternation (paper, Training): fix G and optimise D, then fix D and optimise G."""
        config = self.config
        rate = self.learning_rate()
        for adam in (self.adam_g, self.adam_d):
            if adam is not None:
                adam.param_groups[0]["lr"] = rate
        with self._autocast():
            fake = self._generate(batch.source)
        fake = fake.float()
        source, target = batch.source, centre(batch.target, fake)
        counts = batch.counts * was_acquired(centre(source, fake), target, config.centre_channel)
        # A missing target counts as translated perfectly: it teaches the generator nothing.
        fake_seen = fake * counts + target * (1 - counts)
        share = self.processes.mean(counts.mean()).clamp(min=1e-3)
        losses: dict[str, Tensor] = {}
        if self.discriminator is not None:
            losses["D"] = self._learn_to_judge(source, target, fake_seen.detach())
        weights = {name: getattr(config, name) for name in TERMS}
        loss, parts = reconstruction(fake_seen, target, share, weights)
        losses |= parts
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
            loss_gan = real_or_fake(self._judged(self.discriminator, source, fake_seen), True)
            loss = loss + config.adversarial * loss_gan
            losses["GAN"] = loss_gan.detach()
        self.adam_g.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.adam_g)
        self.scaler.update()
        if self.discriminator is not None:
            self.discriminator.requires_grad_(True)
        self._after_step()
        return losses

    def _learn_to_judge(self, source: Tensor, real: Tensor, fake: Tensor) -> Tensor:
        if self.config.network == "context":  # its norm is over the batch, so real and fake go through one after the other
            logits = [self._judged(self._judge, source, image) for image in (real, fake)]
        else:
            logits = self._judged(self._judge, torch.cat([source, source]), torch.cat([real, fake])).chunk(2)
        loss = 0.5 * (real_or_fake(logits[0], True) + real_or_fake(logits[1], False))
        self.adam_d.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.adam_d)
        return loss.detach()

    def _judged(self, discriminator: nn.Module, source: Tensor, image: Tensor) -> Tensor:
        with self._autocast():
            # Nie et al.'s discriminator sees the patch alone, the paper's sees what it was made from too.
            logits = discriminator(image) if self.config.network == "context" else discriminator(source, image)
        return logits.float()

    def _autocast(self) -> torch.autocast:
        half = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype if half else torch.bfloat16, enabled=half)

    @torch.no_grad()
    def _after_step(self) -> None:
        if self.config.unet_layout == "lua" and self.config.network == "unet":
            for network in (self.generator, self.discriminator):
                zero_convolution_biases(network)
        if self.average is not None:
            decay = min(self.config.ema, (2 + self.step) / (11 + self.step))
            slow, fast = list(self.average.parameters()), list(self.generator.parameters())
            torch._foreach_lerp_(slow, fast, 1 - decay)
            for kept, now in zip(self.average.buffers(), self.generator.buffers(), strict=True):
                kept.copy_(now)

    # --- The state --------------------------------------------------------------------------------------------------

    @property
    def best_generator(self) -> nn.Module:
        """The generator to translate with: the average of the weights if one is kept."""
        return self.generator if self.average is None else self.average

    def state(self) -> dict:
        """All that a bit-identical resume needs. Every process must call it."""
        streams = {"torch_random": torch.get_rng_state()}
        if self.device.type == "cuda":
            streams["device_random"] = torch.cuda.get_rng_state(self.device)
        gathered = {name: self.processes.gather(bytes(stream.numpy())) for name, stream in streams.items()}
        state = {
            "format": 2,
            "config": asdict(self.config),
            "step": self.step,
            "seconds": self.seconds,
            "generator": self.generator.state_dict(),
            "average": self.best_generator.state_dict(),
            "adam_g": self.adam_g.state_dict(),
            "scaler": self.scaler.state_dict(),
            **{name: [torch.frombuffer(bytearray(t), dtype=torch.uint8) for t in texts] for name, texts in gathered.items()},
            "numpy_random": [text.decode() for text in self.processes.gather(self.random_state.encode())],
        }
        if self.discriminator is not None:
            state |= {"discriminator": self.discriminator.state_dict(), "adam_d": self.adam_d.state_dict()}
        return state

    def load_state(self, state: dict) -> None:
        """Continue from what `state` gave, in a run of as many processes."""
        self.step, self.seconds = state["step"], state["seconds"]
        for name in ("generator", "average", "discriminator", "adam_g", "adam_d", "scaler"):
            if getattr(self, name) is not None:
                getattr(self, name).load_state_dict(state[name])
        rank = self.processes.rank
        torch.set_rng_state(state["torch_random"][rank])
        if self.device.type == "cuda" and "device_random" in state:
            torch.cuda.set_rng_state(state["device_random"][rank], self.device)
        self.random_state = self.sampler.random_state = state["numpy_random"][rank]

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Begin with another run's generator."""
        self.generator.load_state_dict(weights)
        if self.average is not None:
            self.average.load_state_dict(weights)

    def close(self) -> None:
        """End the thread that draws ahead."""
        if self._prefetcher is not None:
            self._prefetcher.close()


def centre(images: Tensor, like: Tensor) -> Tensor:
    """The middle part of 3D patches that is as large as `like`; 2D images are as large already."""
    for axis in range(2, images.ndim):
        extra = images.shape[axis] - like.shape[axis]
        if extra:
            images = images.narrow(axis, extra // 2, like.shape[axis])
    return images


def zero_convolution_biases(network: nn.Module | None) -> None:
    """What the torch7 original does before each pass (its train.lua): convolutions have no bias in effect."""
    for module in network.modules() if network is not None else ():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            module.bias.zero_()
