"""The arithmetic of `fields` on tensors: fields [k, j, i, 3] in voxels, with the components i, j, k, on the CPU.

Beyond its grid a field goes on with the value of its edge.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

LARGEST_START = 0.5  # voxels: what scaling and squaring starts from (Arsigny et al. 2006, section 3.3)
AT_A_TIME = 1 << 18  # points of the inverse
PLAIN_TURNS = 12  # of the inverse's fixed-point iteration, before the points that are left go on by Newton's
CHUNKS = 64  # lists of points are sampled in so many parts side by side


def index_grid(shape: tuple[int, ...]) -> Tensor:
    """(K, J, I, 3): each voxel's own indices i, j, k."""
    k, j, i = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij")
    return torch.stack([i, j, k], dim=-1)


def _steps(shape: tuple[int, ...]) -> Tensor:
    """(3,): what a voxel along i, j, k is in `grid_sample`'s coordinates, which run from -1 to 1."""
    return torch.tensor([2 / (n - 1) if n > 1 else 0.0 for n in reversed(shape)])


def displaced(field: Tensor) -> Tensor:
    """(K, J, I, 3) x + u(x) in `grid_sample`'s coordinates."""
    shape = field.shape[:3]
    at = field * _steps(shape)
    for component, axis in enumerate((2, 1, 0)):
        ends = torch.linspace(-1, 1, shape[axis]) if shape[axis] > 1 else torch.zeros(1)
        at[..., component] += ends.reshape([-1 if n == axis else 1 for n in range(3)])
    return at


def sample(field: Tensor, at: Tensor) -> Tensor:
    """The field (K, J, I, 3) at the places `at` (B, ..., 3) of `grid_sample`'s coordinates: (B, ..., 3).

    PyTorch works on the entries of a batch side by side, but on one entry with one core: each of the B is an entry.
    """
    batch, count = at.shape[0], int(np.prod(at.shape[1:-1]))
    values = field.permute(3, 0, 1, 2)[None].expand(batch, -1, -1, -1, -1)
    grid = at.reshape(batch, 1, 1, count, 3)
    sampled = grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return sampled.reshape(batch, 3, count).movedim(1, 2).reshape(at.shape)


def sample_at(field: Tensor, points: Tensor) -> Tensor:
    """The field at (N, 3) voxel indices i, j, k: (N, 3)."""
    rows = -(-len(points) // CHUNKS)
    at = points * _steps(field.shape[:3]) - (torch.tensor(field.shape[2::-1]) > 1).float()
    at = pad(at, (0, 0, 0, rows * CHUNKS - len(points))).reshape(CHUNKS, rows, 3)
    return sample(field, at).reshape(-1, 3)[: len(points)]


def flow_of(velocity: Tensor) -> Tensor:
    """exp(v) - id by scaling and squaring."""
    longest = float(velocity.norm(dim=-1).max()) if velocity.numel() else 0.0
    squarings = max(0, int(np.ceil(np.log2(longest / LARGEST_START)))) if longest > 0 else 0
    field = velocity / 2**squarings
    field = sample(field, displaced(field / 2))
    for _ in range(squarings):
        field = field + sample(field, displaced(field))
    return field


def gradient(field: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """d(x + u)/di, dj, dk in voxels, each (K, J, I, 3): the columns of the Jacobian matrix. Central differences."""
    columns = []
    for component, axis in enumerate((2, 1, 0)):
        column = torch.gradient(field, dim=axis)[0] if field.shape[axis] > 1 else torch.zeros_like(field)
        column[..., component] += 1
        columns.append(column)
    return tuple(columns)


def gradient_at(field: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same at (N, 3) voxel indices, over one voxel: each (N, 3)."""
    half = torch.eye(3) / 2
    return tuple(sample_at(field, points + h) - sample_at(field, points - h) + 2 * h for h in half)


def solved(columns: tuple[Tensor, Tensor, Tensor], residual: Tensor) -> Tensor:
    """J^-1 r by the adjugate. Near a fold, where the inverse explodes, the determinant counts as 0.2."""
    a, b, c = columns
    normals = torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)
    determinant = (a * normals[0]).sum(dim=-1, keepdim=True).clamp(min=0.2)
    return torch.stack([(normal * residual).sum(dim=-1) for normal in normals], dim=-1) / determinant


def smoothed(field: Tensor) -> Tensor:
    """(1, 2, 1) / 4 along each axis; the edge goes on."""
    for axis in range(3):
        count = field.shape[axis]
        before = torch.cat([field.narrow(axis, 0, 1), field.narrow(axis, 0, count - 1)], dim=axis)
        after = torch.cat([field.narrow(axis, 1, count - 1), field.narrow(axis, count - 1, 1)], dim=axis)
        field = 0.5 * field + 0.25 * (before + after)
    return field


def preimages(field: Tensor, targets: Tensor, tolerance: float) -> tuple[Tensor, int]:
    """(N, 3) voxel indices p with p + u(p) = target, and how many of them miss it by more than `tolerance` voxels.

    Damped fixed-point iteration of each point on its own, then Newton's method. In parts that bound the memory.
    """
    found, missed = torch.empty_like(targets), 0
    for start in range(0, len(targets), AT_A_TIME):
        part = slice(start, start + AT_A_TIME)
        found[part], errors = _settled(field, targets[part], tolerance / 2)
        missed += int((errors > tolerance).sum())
    return found, missed


def _settled(field: Tensor, targets: Tensor, aim: float, turns: int = 60) -> tuple[Tensor, Tensor]:
    """(N, 3) the nearest solutions of p + u(p) = target, and (N,) by how many voxels they miss it."""
    found = targets - sample_at(field, targets)
    off = found + sample_at(field, found) - targets
    errors = off.norm(dim=-1)
    left, points, error, step = torch.arange(len(targets)), found.clone(), errors.clone(), torch.ones(len(targets))
    for turn in range(turns):
        still = error > aim
        found[left], errors[left] = points, error
        left, points, targets, off, error, step = (x[still] for x in (left, points, targets, off, error, step))
        if not len(left):
            break
        if turn == PLAIN_TURNS:
            step = torch.ones(len(left))
        towards = off if turn < PLAIN_TURNS else solved(gradient_at(field, points), off)
        tried = points - step[:, None] * towards
        tried_off = tried + sample_at(field, tried) - targets
        tried_error = tried_off.norm(dim=-1)
        nearer = tried_error < error
        points, off = torch.where(nearer[:, None], tried, points), torch.where(nearer[:, None], tried_off, off)
        error = torch.where(nearer, tried_error, error)
        step = torch.where(nearer, (1.5 * step).clamp(max=1), step / 2)
    found[left], errors[left] = points, error
    return found, errors
