"""Patches of images: what size they have by default, and which sizes fit."""

from collections.abc import Iterator

from backends.specs import ModelSpec


def default_patch_size(image_size: int) -> int:
    """The divisor of the image's side that is nearest to an eighth of it, and to 2 in small images."""
    return min(divisors(image_size), key=lambda size: abs(size - max(2.0, image_size / 8)))


def patch_faults(spec: ModelSpec) -> Iterator[str]:
    """A sentence where no grid of patches is an image."""
    if spec.image_size % spec.patch_size:
        yield (
            f"model.patch_size: {spec.patch_size} does not divide the image of {spec.image_size} pixels "
            f"(data.image_size); allowed: {listed(divisors(spec.image_size))}"
        )


def divisors(number: int) -> list[int]:
    """The whole numbers that divide a number, in order."""
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def listed(numbers: list[int]) -> str:
    """Numbers in a sentence."""
    return ", ".join(map(str, numbers))
