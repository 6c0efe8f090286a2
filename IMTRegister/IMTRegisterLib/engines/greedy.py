"""Greedy (picsl_greedy, Yushkevich et al.): rigid and affine registration, then greedy diffeomorphic registration.

Greedy's matrices are RAS, its displacement fields ITK's (LPS). Images go in as SimpleITK's, which here is that of the
engines' own package folder.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from picsl_greedy import Greedy2D, Greedy3D

from IMTCore.errors import BadInput

from .images import Frame, Problem, after, flip_lps_ras

METRICS = ("NMI", "MI", "NCC", "WNCC", "SSD")  # Greedy takes any other word for SSD


def linear(problem: Problem) -> np.ndarray:
    """(d + 1, d + 1) A: what the preset's commands give one after the other, each from where the last one ended."""
    matrix = problem.matrix
    for command in problem.settings["commands"]:
        np.savetxt("start.mat", flip_lps_ras(matrix), fmt="%.17g")
        matrix = flip_lps_ras(np.array(_execute(problem, command, start="start.mat"), dtype=np.float64))
    return matrix


def deformable(problem: Problem) -> np.ndarray:
    """float32 u in mm, what the preset's command gives. A start's field warps the moving image before it.

    The two are then composed. Greedy's own `-id` takes no ordinary field in its stationary velocity mode.
    """
    np.savetxt("start.mat", flip_lps_ras(problem.matrix), fmt="%.17g")
    start = "start.mat"
    if problem.displacement is not None:
        sitk.WriteImage(_image(problem.displacement, problem.fixed_frame, vectors=True), "start.mha")
        start = "start.mha start.mat"
    velocity = "-sv" if problem.settings["velocity"] else ""
    result = _execute(problem, problem.settings["command"], start=start, velocity=velocity)
    return after(problem.displacement, sitk.GetArrayFromImage(result), problem.fixed_frame)


def _execute(problem: Problem, command: str, **values: str) -> object:
    """What a command puts into its {result}: a matrix (RAS), or an image of vectors."""
    if problem.settings["metric"] not in METRICS:
        raise BadInput(f"Greedy has no metric {problem.settings['metric']!r}: use one of {', '.join(METRICS)}.")
    images, pairs = {}, []
    for n, (fixed, moving, weight) in enumerate(zip(problem.fixed, problem.moving, problem.weights, strict=True)):
        images[f"fixed{n}"] = _image(fixed, problem.fixed_frame)
        images[f"moving{n}"] = _image(moving, problem.moving_frame)
        pairs.append(f"-w {weight:.9g} -i fixed{n} moving{n}")
    for option, mask, frame in (
        ("-gm", problem.fixed_mask, problem.fixed_frame),
        ("-mm", problem.moving_mask, problem.moving_frame),
    ):
        if mask is not None:
            images[f"mask{option}"] = _image(mask, frame)
            pairs.append(f"{option} mask{option}")
    if "radius" in problem.settings:
        values["radius"] = "x".join([str(problem.settings["radius"])] * problem.fixed_frame.dimension)
    words = problem.fill(command, pairs=" ".join(pairs), result="result", **values)
    greedy = Greedy2D() if problem.fixed_frame.dimension == 2 else Greedy3D()
    greedy.execute(" ".join([*words, "-seed", str(problem.seed), "-threads", str(problem.threads)]), result=None, **images)
    return greedy["result"]


def _image(array: np.ndarray, frame: Frame, vectors: bool = False) -> sitk.Image:
    image = sitk.GetImageFromArray(np.asarray(array, dtype=np.float64), isVector=vectors)
    image.SetSpacing(frame.spacing.tolist())
    image.SetOrigin(frame.origin.tolist())
    image.SetDirection(frame.direction.ravel().tolist())
    return image
