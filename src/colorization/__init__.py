"""Automatic image colorization in CIE L*a*b*: four model stages, trained, evaluated and used from one package.

``from colorization import Colorizer`` is the Python door. Importing the package itself imports no torch.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from colorization.colorize.colorizer import Colorizer

__all__ = ["Colorizer", "__version__"]
__version__ = version("lab-colorization")


def __getattr__(name: str) -> object:
    if name == "Colorizer":
        from colorization.colorize.colorizer import Colorizer

        return Colorizer
    raise AttributeError(f"module 'colorization' has no attribute {name!r}")
