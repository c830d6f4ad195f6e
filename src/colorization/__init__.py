"""Automatic image colorization in CIE L*a*b*: four model stages, trained, evaluated and used from one package.

``from colorization import Colorizer`` is the Python door. Importing the package itself imports no torch.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from colorization.colorize.colorizer import Colorizer
    from colorization.colorize.hints import Hint

__all__ = ["Colorizer", "Hint", "__version__"]
__version__ = version("lab-colorization")


def __getattr__(name: str) -> object:
    if name == "Colorizer":
        from colorization.colorize.colorizer import Colorizer

        return Colorizer
    if name == "Hint":
        from colorization.colorize.hints import Hint

        return Hint
    raise AttributeError(f"module 'colorization' has no attribute {name!r}")
