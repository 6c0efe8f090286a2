"""Elastix (itk-elastix, Klein et al. 2010): Euler and affine registration, then B-splines, by parameter maps.

Elastix adds a transform after its start, in the moving image's space: T(x) = B(A(x + u0(x))). With the same A that is
A(x + u(x)) for u(x) = A^-1(T(x)) - x, which is what comes back.

ITK's classes come straight from their modules: `itk.ElastixRegistrationMethod` loads all of ITK first, which takes ten
seconds in each process, this half a second.
"""

from __future__ import annotations

import importlib
from typing import Any

import itk
import numpy as np

from .images import Frame, Problem, field_before, matrix_of

PER_CHANNEL = ("FixedImagePyramid", "MovingImagePyramid", "Interpolator", "ImageSampler", "Metric")
PER_AXIS = ("SampleRegionSize",)


def linear(problem: Problem) -> np.ndarray:
    """(d + 1, d + 1) A: the start, then each of the preset's transforms."""
    total, *_ = _register(problem)
    return matrix_of(total.TransformPoint, problem.fixed_frame.dimension)


def deformable(problem: Problem) -> np.ndarray:
    """float32 u in mm: of start and B-splines together."""
    total, fixed, *_ = _register(problem)
    d = problem.fixed_frame.dimension
    sampler = _new("itkTransformToDisplacementFieldFilter", f"IVF{d}{d}D")
    sampler.SetUseReferenceImage(True)
    sampler.SetReferenceImage(fixed)
    sampler.SetTransform(total)
    sampler.Update()
    return field_before(problem.matrix, itk.array_view_from_image(sampler.GetOutput()), problem.fixed_frame)


def _register(problem: Problem) -> tuple[Any, ...]:
    """The total transform, the first fixed image, and what else must live as long as they do."""
    d = problem.fixed_frame.dimension
    fixed = [_image(array, problem.fixed_frame) for array in problem.fixed]
    moving = [_image(array, problem.moving_frame) for array in problem.moving]
    method = _new("itkElastixRegistrationMethod", f"IF{d}IF{d}")
    for image in fixed:
        method.AddFixedImage(image)
    for image in moving:
        method.AddMovingImage(image)
    masks = []
    for mask, frame, put in (
        (problem.fixed_mask, problem.fixed_frame, method.SetFixedMask),
        (problem.moving_mask, problem.moving_frame, method.SetMovingMask),
    ):
        if mask is not None:
            masks.append(_image(mask, frame, "UC"))
            put(masks[-1])
    parameters = importlib.import_module("itk.elxParameterObjectPython").elastixParameterObject.New()
    for name in problem.settings["transforms"]:
        parameters.AddParameterMap(_parameter_map(problem, name))
    start = _start(problem)
    method.SetParameterObject(parameters)
    method.SetExternalInitialTransform(start)
    method.SetLogToConsole(True)  # which is the server's log
    method.SetLogToFile(False)
    method.SetNumberOfThreads(problem.threads)
    method.UpdateLargestPossibleRegion()
    return method.GetCombinationTransform(), fixed[0], method, start, moving, masks


def _parameter_map(problem: Problem, transform: str) -> dict[str, list[str]]:
    """A parameter map in elastix' words: every value is a list of texts."""
    settings = {name: value for name, value in problem.settings.items() if name != "transforms"}
    settings |= {"Transform": transform, "RandomSeed": problem.seed}
    channels = len(problem.fixed)
    if channels > 1:
        settings["Registration"] = "MultiMetricMultiResolutionRegistration"
        settings |= {name: [settings[name]] * channels for name in PER_CHANNEL}
        settings |= {f"Metric{n}Weight": weight for n, weight in enumerate(problem.weights)}
    for name in PER_AXIS:
        if name in settings:
            settings[name] = [settings[name]] * problem.fixed_frame.dimension
    return {name: _texts(value) for name, value in settings.items()}


def _texts(value: object) -> list[str]:
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return [f"{value:.12g}" if isinstance(value, float) else str(value)]


def _start(problem: Problem) -> Any:
    d = problem.fixed_frame.dimension
    matrix = _new("itkAffineTransform", f"D{d}")
    # As parameters, row after row and then the translation: about the origin, which is the centre unless one is set.
    parameters = matrix.GetParameters()
    for n, value in enumerate([*problem.matrix[:-1, :-1].ravel(), *problem.matrix[:-1, -1]]):
        parameters.SetElement(n, float(value))
    matrix.SetParameters(parameters)
    if problem.displacement is None:
        return matrix
    warp, both = _new("itkDisplacementFieldTransform", f"D{d}"), _new("itkCompositeTransform", f"D{d}")
    warp.SetDisplacementField(_image(problem.displacement, problem.fixed_frame, f"VD{d}"))
    both.AddTransform(matrix)
    both.AddTransform(warp)  # added last, applied first
    return both


def _image(array: np.ndarray, frame: Frame, kind: str = "F") -> Any:
    """An ITK image of the pixel type `kind`: "F", "UC", or "VD3" for vectors."""
    image = _new("itkImage", f"{kind}{frame.dimension}")
    image.SetRegions([int(n) for n in frame.shape[::-1]])
    image.Allocate()
    itk.array_view_from_image(image)[:] = array
    image.SetSpacing(frame.spacing.tolist())
    image.SetOrigin(frame.origin.tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(frame.direction)))
    return image


def _new(module: str, types: str) -> Any:
    return getattr(importlib.import_module(f"itk.{module}Python"), module + types).New()
