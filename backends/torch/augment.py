"""A training batch on the device: one gather for crop, flip and input permutation, then mixup or cutmix."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Data:
    """The data set on the device: images (n, h*w, channels), labels (n,), pixel_order (h*w,) or None."""

    images: Tensor
    labels: Tensor
    pixel_order: Tensor | None


def scale(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 to [-1, 1]: an exact whole number times 1/255, so that every framework rounds once; floats as they are."""
    if pixels.dtype != torch.uint8:
        return pixels.to(dtype)
    return pixels.to(dtype).mul_(2).sub_(255).mul_(1 / 255)  # in place: of an evaluation it is the largest array


def gather(data: Data, step: dict[str, Tensor]) -> Tensor:
    """Pixels (b, h*w, channels) of the step's examples after flip, crop and input permutation, in that order."""
    if "pixels" in step:  # they are a data set of b images
        own = step["pixels"].flatten(1, 2)
        data = Data(own, data.labels, data.pixel_order)
        step = {**step, "examples": torch.arange(len(own), device=own.device)}
    num_pixels = data.images.shape[1]
    side = round(num_pixels**0.5)
    order = data.pixel_order
    if "crops" not in step and "flips" not in step:
        pixels = data.images[step["examples"]]
        return pixels if order is None else pixels[:, order]
    target = torch.arange(num_pixels, device=data.images.device) if order is None else order
    rows, columns = (target // side)[None], (target % side)[None]
    if "crops" in step:
        rows, columns = rows + step["crops"][:, :1], columns + step["crops"][:, 1:]
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    if "flips" in step:
        columns = torch.where(step["flips"][:, None], side - 1 - columns, columns)
    source = torch.where(inside, rows * side + columns, 0)
    black = 0 if data.images.dtype == torch.uint8 else -1
    return torch.where(inside[..., None], data.images[step["examples"][:, None], source], black)


def batch(
    data: Data, step: dict[str, Tensor], num_classes: int, smoothing: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Images (b, h, w, channels) and targets (b, k) of one step, after augmentation, mixup and cutmix."""
    pixels = scale(gather(data, step), dtype)
    side = round(pixels.shape[1] ** 0.5)
    images = pixels.reshape(len(pixels), side, side, -1)
    labels, classes = data.labels[step["examples"]], torch.arange(num_classes, device=pixels.device)
    targets = (labels[:, None] == classes).to(dtype) * (1 - smoothing) + smoothing / num_classes
    if "mixup_partners" in step:
        partners, name = step["mixup_partners"], "target_weights" if "target_weights" in step else "mixup_weights"
        own, weight = slice(len(partners)), step[name].to(dtype)  # of a microbatch; of a whole batch it is all of it
        images = mixed(images[own], images[partners], step)
        targets = weight * targets[own] + (1 - weight) * targets[partners]
    return images, targets


def mixed(images: Tensor, others: Tensor, step: dict[str, Tensor]) -> Tensor:
    """Images (b, h, w, channels) with a share of the others mixed in, or a box of them set in."""
    if "mixup_weights" in step:
        weight = step["mixup_weights"].to(images.dtype)
        images = weight * images + (1 - weight) * others
    if "cutmix_boxes" in step:
        place = torch.arange(images.shape[1], device=images.device)
        top, bottom, left, right = step["cutmix_boxes"].unbind()
        inside = ((place >= top) & (place < bottom))[:, None] & (place >= left) & (place < right)
        images = torch.where(inside[..., None], others, images)
    return images
