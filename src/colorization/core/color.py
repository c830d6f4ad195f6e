"""CIE L*a*b* and the computations in it. No other module knows a Lab range, a white point or a gamma.

Every function takes NumPy arrays or torch tensors and answers in kind, so that training (batched tensors on an
accelerator) and colorizing (one large NumPy photo, no torch needed) share one implementation.

Layout: channels first. ``rgb``: (..., 3, H, W), uint8 in [0, 255] or float in [0, 1], sRGB-encoded. ``lab``:
(..., 3, H, W) float32, L* in [0, 100], a* and b* in Lab units, D65 white, 2° observer.

Networks see normalised planes: ``L`` = L*/100 in [0, 1] and ``ab`` = a*b*/110 (see :func:`split`, :func:`join`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from colorization.core.errors import InputError

Array = Any  # numpy.ndarray | torch.Tensor; torch is deliberately not imported here

L_SCALE = 100.0
AB_SCALE = 110.0
# The smallest box that holds every 8-bit sRGB colour, in Lab units (a*, b*); rounded outwards.
AB_MIN = (-86.2, -107.9)
AB_MAX = (98.3, 94.5)
# Below this Hasler-Süsstrunk colorfulness a photograph counts as near-grey.
NEAR_GREY = 15.0
# From these own colours on (see own_colors) a photograph counts as one in colour, not as a toned grey one.
OWN_COLORS = 14.0

# sRGB primaries (IEC 61966-2-1) and the D65 white of the 2° observer, to the digits that scikit-image uses.
_RGB_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.95047, 1.0, 1.08883])
_TO_LMN = (_RGB_TO_XYZ / _WHITE[:, None]).tolist()  # linear RGB -> XYZ relative to white
_FROM_LMN = (np.linalg.inv(_RGB_TO_XYZ) * _WHITE[None, :]).tolist()
_EPSILON, _KAPPA = 0.008856, 7.787  # CIE 1976, the constants of scikit-image
_F_EPSILON = 0.2068966
_CODES = np.arange(256) / 255.0
_TOLERANCE = 1e-4  # of the gamut, in linear light
_GAMUT = (-_TOLERANCE,) * 3, (1 + _TOLERANCE,) * 3
_STRIP = 1 << 16  # pixels converted at once on the CPU: the intermediate arrays fit into the L2 cache
_TILE = 1 << 17  # pixels that are recolored at once: half as many take longer, by the overhead of forty calls
_LINEAR_OF_CODE = np.where(_CODES > 0.04045, ((_CODES + 0.055) / 1.055) ** 2.4, _CODES / 12.92).astype(np.float32)
# The same for OpenCV.
_TO_LMN_ARRAY = np.array(_TO_LMN, np.float32)
_FROM_LMN_ARRAY = np.array(_FROM_LMN, np.float32)
_TO_ROUNDED_LUMINANCE = np.array([[*(65534 * m for m in _TO_LMN[1]), 0.5]], np.float32)
_LAB_OF_F = np.array([[0, 116, 0, -16], [500, -500, 0, 0], [0, 200, -200, 0]], np.float32)


def _namespace(x: Array) -> ModuleType:
    """``torch`` for a tensor, ``numpy`` for an array; raises ``TypeError`` for anything else."""
    if isinstance(x, np.ndarray):
        return np
    torch = sys.modules.get("torch")  # a tensor exists only if torch is imported
    if torch is not None and isinstance(x, torch.Tensor):
        return torch
    raise TypeError(f"expected a numpy array or a torch tensor, got {type(x).__name__}")


def _float32(x: Array) -> Array:
    return x.astype(np.float32) if isinstance(x, np.ndarray) else x.float()


def _planes(x: Array) -> tuple[Array, Array, Array]:
    return x[..., 0, :, :], x[..., 1, :, :], x[..., 2, :, :]


@cache
def _linear_table(device: Any) -> Array:
    """:data:`_LINEAR_OF_CODE` on a torch device, copied there once."""
    return sys.modules["torch"].from_numpy(_LINEAR_OF_CODE).to(device)


def _linear(rgb: Array) -> Array:
    """sRGB decoding: uint8 codes by table (exact), floats in [0, 1] by formula. float32 in [0, 1]."""
    xp = _namespace(rgb)
    if xp is np:
        if rgb.dtype == np.uint8:
            return _LINEAR_OF_CODE[rgb]
    elif rgb.dtype == xp.uint8:
        return _linear_table(rgb.device)[rgb.long()]
    rgb = _float32(rgb)
    return xp.where(rgb > 0.04045, ((rgb.clip(0) + 0.055) / 1.055) ** 2.4, rgb / 12.92)


# The curves below are a power above a joint and a line below it: the power of what is at least the joint, plus the line
# over how far the value lies below the joint, which costs less than a mask. In place, because memory takes the time.
def _power(x: Array, exponent: float) -> Array:
    """``x ** exponent`` of positive ``x``, several times as fast."""
    if isinstance(x, np.ndarray):
        log = cv2.log(x.reshape(1, -1))  # a matrix whatever the shape: OpenCV would take a short last axis for channels
        return cv2.exp(log * exponent).reshape(x.shape)
    log = x.log()
    log *= exponent
    return log.exp()


def _encode(linear: Array) -> Array:
    """sRGB encoding of linear light; values outside [0, 1] go through unclipped (negative ones linearly)."""
    upper = linear.clip(min=0.0031308)
    below = linear - upper
    below *= 12.92
    below -= 0.055
    below += 1.055 * _power(upper, 1 / 2.4)
    return below


def _f(t: Array) -> Array:
    upper = t.clip(min=_EPSILON)
    below = t - upper
    below *= _KAPPA
    below += _power(upper, 1 / 3)
    return below


def _f_inverse(f: Array) -> Array:
    upper = f.clip(min=_F_EPSILON)
    below = f - upper
    below /= _KAPPA
    below += upper * upper * upper
    return below


def rgb_to_lab(rgb: Array) -> Array:
    """sRGB to CIE L*a*b*.

    Args:
        rgb: (..., 3, H, W), uint8 in [0, 255] or float in [0, 1].

    Returns:
        (..., 3, H, W) float32: L* in [0, 100], a*, b* in Lab units.
    """
    xp = _namespace(rgb)
    if xp is np and rgb.dtype == np.uint8:
        return _lab_of_codes(rgb)
    if rgb.dtype == xp.uint8 and rgb.device.type == "cpu":
        return xp.from_numpy(_lab_of_codes(rgb.numpy()))
    return _linear_to_lab(_linear(rgb))


def _mix(weights: list[float], x: Array, y: Array, z: Array) -> Array:
    total = x * weights[0]
    total += y * weights[1]
    total += z * weights[2]
    return total


def _linear_to_lab(linear: Array) -> Array:
    xp = _namespace(linear)
    r, g, b = _planes(linear)
    fx, fy, fz = (_f(_mix(m, r, g, b)) for m in _TO_LMN)
    return xp.stack((116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)), -3)


def _lab_of_codes(rgb: np.ndarray) -> np.ndarray:
    """:func:`rgb_to_lab` of uint8 with OpenCV's vector instructions, several times as fast as NumPy and torch.

    OpenCV works on interleaved channels, so an array whose memory is (..., H, W, 3), seen as (..., 3, H, W), is
    converted without a copy, and the result is laid out like that, too. (Its own RGB to Lab conversion is not used:
    it is off by up to 0.5.)
    """
    pixels = np.ascontiguousarray(np.moveaxis(rgb, -3, -1))
    lab = np.empty(pixels.shape, np.float32)
    flat, out = pixels.reshape(-1, 1, 3), lab.reshape(-1, 1, 3)
    for start in range(0, len(flat), _STRIP):
        lmn = cv2.transform(cv2.LUT(flat[start : start + _STRIP], _LINEAR_OF_CODE), _TO_LMN_ARRAY)
        cv2.transform(_f(lmn), _LAB_OF_F, out[start : start + _STRIP])
    return np.moveaxis(lab, -1, -3)


def _lab_to_linear(lab: Array) -> Array:
    xp = _namespace(lab)
    L, a, b = _planes(_float32(lab))
    fy = (L + 16) / 116
    # As scikit-image: a negative Z (only far out of gamut) counts as zero.
    x, y, z = _f_inverse(a / 500 + fy), _f_inverse(fy), _f_inverse((fy - b / 200).clip(0))
    return xp.stack([_mix(m, x, y, z) for m in _FROM_LMN], -3)


def lab_to_rgb(lab: Array) -> Array:
    """CIE L*a*b* to sRGB, clipped to [0, 1] channel by channel.

    Args:
        lab: (..., 3, H, W).

    Returns:
        (..., 3, H, W) float32 in [0, 1].
    """
    return _encode(_lab_to_linear(lab)).clip(0, 1)


def as_shown(lab: Array) -> tuple[Array, Array]:
    """The colours that a screen shows of ``lab`` (..., 3, H, W): their sRGB, as :func:`lab_to_rgb`, and their Lab.

    Clipping an out-of-gamut colour also changes its lightness and hue.
    """
    linear = _lab_to_linear(lab).clip(0, 1)
    return _encode(linear), _linear_to_lab(linear)


def in_gamut(lab: Array, tolerance: float = _TOLERANCE) -> Array:
    """Whether each pixel is a colour that sRGB has: (..., H, W) bool. ``tolerance`` is in linear light."""
    linear = _lab_to_linear(lab)
    inside = (linear >= -tolerance) & (linear <= 1 + tolerance)
    r, g, b = _planes(inside)
    return r & g & b


def fit_to_gamut(lab: np.ndarray) -> np.ndarray:
    """Take chroma from colours outside sRGB until they fit, at constant L* and hue.

    Clipping the channels of an out-of-gamut colour would change its lightness; a colorized photo must keep the
    lightness of the original.

    Args:
        lab: (3, H, W) float32 NumPy array.

    Returns:
        (3, H, W) float32, equal to ``lab`` where that was in gamut.
    """
    outside = ~in_gamut(lab)
    L, a, b = lab[:, outside]
    fitted = lab.copy()
    f = (L + 16) / 116
    fitted[1:, outside] *= _chroma_in_gamut(_f_inverse(f), f, a / 500, b / -200)
    return fitted


def _chroma_in_gamut(luminance: np.ndarray, f: np.ndarray, dx: np.ndarray, dz: np.ndarray) -> np.ndarray:
    """How much of the chroma of colours outside sRGB leaves them on its surface.

    The root of the excess over the gamut along the chroma, by false position (Illinois), only of those that are not
    there yet: three evaluations for most, where a bisection takes twelve.

    Args:
        luminance, f: (N,) float32, Y of the white and f(Y).
        dx, dz: (N,) float32, f(X) and f(Z) less f(Y), i.e. a*/500 and -b*/200.

    Returns:
        (N,) float32 in [0, 1].
    """
    half, limit = np.float32(0.5), np.float32(0.5 + _TOLERANCE)

    def excess(share: np.ndarray) -> np.ndarray:
        x, z = _f_inverse(f + share * dx), _f_inverse(f + share * dz)
        channels = [np.abs(_mix(m, x, luminance, z) - half) for m in _FROM_LMN]
        return np.maximum(np.maximum(*channels[:2]), channels[2]) - limit

    result = np.empty_like(luminance)
    rest = np.arange(luminance.size)
    one = np.ones_like(luminance)
    low, below, high, above = 0 * one, np.abs(luminance - half) - limit, one, excess(one)
    last = 0 * one  # which side moved
    for _ in range(30):
        share = low + (high - low) * (below / (below - above))
        value = excess(share)
        result[rest] = share
        on = np.flatnonzero(np.abs(value) > 2e-5)  # a seventh of an 8-bit code in the darkest shadows
        if not on.size:
            break
        rest, share, value = rest[on], share[on], value[on]
        luminance, f, dx, dz, low, below, high, above, last = (
            x[on] for x in (luminance, f, dx, dz, low, below, high, above, last)
        )
        inside = value <= 0
        moved = np.where(inside, np.float32(-1), np.float32(1))
        stuck = np.where(moved == last, half, np.float32(1))  # the end that stays a second time counts half
        low, below = np.where(inside, share, low), np.where(inside, value, below * stuck)
        high, above = np.where(inside, high, share), np.where(inside, above * stuck, value)
        last = moved
    return result


def split(lab: Array) -> tuple[Array, Array]:
    """Lab to what networks use: ``L`` (..., 1, H, W) in [0, 1] and ``ab`` (..., 2, H, W), about [-1, 1]."""
    return lab[..., :1, :, :] / L_SCALE, lab[..., 1:, :, :] / AB_SCALE


def join(L: Array, ab: Array) -> Array:
    """The inverse of :func:`split`: (..., 3, H, W) float32 Lab."""
    xp = _namespace(L)
    parts = (_float32(L) * L_SCALE, _float32(ab) * AB_SCALE)
    return np.concatenate(parts, -3) if xp is np else xp.cat(parts, -3)


def squash_ab(x: Array) -> Array:
    """Bound a network's raw output to the ab box of sRGB, smoothly, with grey (0) staying grey.

    Args:
        x: (..., 2, H, W), any real value.

    Returns:
        (..., 2, H, W) float32 normalised ab inside [AB_MIN, AB_MAX] / AB_SCALE: tanh(x), scaled on each side of
        zero to the box's edge on that side.
    """
    xp = _namespace(x)
    planes = []
    for i in range(2):
        t = xp.tanh(_float32(x[..., i, :, :]))
        planes.append(xp.where(t < 0, t * (-AB_MIN[i] / AB_SCALE), t * (AB_MAX[i] / AB_SCALE)))
    return xp.stack(planes, -3)


def lightness_of_grey(grey: Array) -> Array:
    """``L`` in [0, 1] (float32) of a grey picture: uint8 in [0, 255] or float in [0, 1], any shape."""
    return (116 * _f(_linear(grey)) - 16) / L_SCALE


def grey_codes(rgb: np.ndarray) -> np.ndarray:
    """The picture in grey, with the same lightness: (..., 3, H, W) uint8 to (..., 1, H, W) uint8.

    The grey value is the encoded luminance, so neither L* nor a root has to be computed; by table, to within a code.
    """
    pixels = np.ascontiguousarray(np.moveaxis(rgb, -3, -1))
    luminance = cv2.transform(cv2.LUT(pixels.reshape(-1, 1, 3), _LINEAR_OF_CODE), _TO_ROUNDED_LUMINANCE)
    return _CODE_OF_LUMINANCE[luminance.astype(np.uint16)].reshape(pixels.shape[:-1])[..., None, :, :]


def grey_of_lightness(L: Array) -> Array:
    """The sRGB-encoded grey value in [0, 1] of ``L`` in [0, 1]; the inverse of :func:`lightness_of_grey`."""
    return _encode(_f_inverse((_float32(L) * L_SCALE + 16) / 116)).clip(0, 1)


_CODE_OF_LUMINANCE = np.rint(_encode(np.arange(65536, dtype=np.float32) / 65534) * 255).astype(np.uint8)


def reduced_lightness(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """``L`` in [0, 1], (height, width) float32, of a photo resized to the network's input.

    Args:
        pixels: (H, W) grey or (H, W, 3) sRGB, uint8 or uint16.
    """
    # Area averaging avoids aliasing when reducing, but gives blocks when a tiny picture is enlarged.
    way = cv2.INTER_AREA if height < pixels.shape[0] else cv2.INTER_CUBIC
    reduced = cv2.resize(pixels, (width, height), interpolation=way).astype(np.float32) / np.iinfo(pixels.dtype).max
    if reduced.ndim == 2:
        return lightness_of_grey(reduced)
    return split(rgb_to_lab(reduced.transpose(2, 0, 1)))[0][0]


def recolor(pixels: np.ndarray, ab: np.ndarray, strength: float = 1.0, threads: int | None = None) -> np.ndarray:
    """A photo with its own lightness and the colours of ``ab``, enlarged to its size (bicubic).

    It is done in strips, so that beside the photo and the answer only a few MB and ``ab`` at the photo's width take
    memory.

    Args:
        pixels: (H, W) grey or (H, W, 3) sRGB, uint8 or uint16.
        ab: (2, h, w) float32 normalised. Colours that sRGB does not have lose chroma at constant L* and hue.
        strength: factor on the chroma after that.
        threads: cores to use; default those that OpenCV uses.

    Returns:
        (H, W, 3) sRGB of the same dtype.
    """
    height, width = pixels.shape[:2]
    if width > _TILE:  # on its side, because a strip is at least a row
        on_side = recolor(pixels.swapaxes(0, 1), ab.swapaxes(1, 2), strength, threads)
        return np.ascontiguousarray(on_side.swapaxes(0, 1))
    # f(X) - f(Y) and f(Z) - f(Y), at full width; each strip brings its rows to full height.
    shift = ab * np.array([[[AB_SCALE / 500]], [[AB_SCALE / -200]]], np.float32)
    wide = np.stack([cv2.resize(d, (width, len(d)), interpolation=cv2.INTER_CUBIC) for d in shift])
    result = np.empty((height, width, 3), pixels.dtype)
    rows = max(1, _TILE // width)

    def strip(top: int) -> None:
        bottom = min(top + rows, height)
        luminance, f = _luminance(pixels[top:bottom])
        dx, dz = _cubic_rows(wide, top, bottom, height)
        linear = _shifted(luminance, f, dx, dz)
        outside = np.flatnonzero(cv2.inRange(linear, *_GAMUT) == 0)
        if outside.size:
            Y, fY, x, z = (plane.reshape(-1)[outside] for plane in (luminance, f, dx, dz))
            kept = _chroma_in_gamut(Y, fY, x, z)
            x, z = kept * x, kept * z
            dx.reshape(-1)[outside], dz.reshape(-1)[outside] = x, z
            linear.reshape(-1, 3)[outside] = _shifted(Y[None], fY[None], x[None], z[None])
        if strength != 1:
            linear = _shifted(luminance, f, np.float32(strength) * dx, np.float32(strength) * dz)
        result[top:bottom] = _codes(linear, pixels.dtype)

    with ThreadPoolExecutor(threads or cv2.getNumThreads()) as pool:
        for _ in pool.map(strip, range(0, height, rows)):
            pass
    return result


@cache
def _tables(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Linear light of each code, and f of that, float32."""
    top = np.iinfo(dtype).max
    linear = _linear(np.arange(top + 1, dtype=np.float64) / top) if dtype != np.uint8 else _LINEAR_OF_CODE
    return linear, _f(linear)


def _luminance(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Y of the white and f(Y), (H, W) float32, of (H, W) grey or (H, W, 3) sRGB, uint8 or uint16."""
    linear, f = _tables(pixels.dtype)
    if pixels.ndim == 2:
        return cv2.LUT(pixels, linear), cv2.LUT(pixels, f)
    luminance = cv2.transform(cv2.LUT(pixels, linear), _TO_LMN_ARRAY[1:2])
    return luminance, _f(luminance)


def _shifted(luminance: np.ndarray, f: np.ndarray, dx: np.ndarray, dz: np.ndarray) -> np.ndarray:
    """Linear light (H, W, 3) of Y, f(Y), f(X) - f(Y) and f(Z) - f(Y), each (H, W) float32."""
    return cv2.transform(cv2.merge((_f_inverse(f + dx), luminance, _f_inverse(f + dz))), _FROM_LMN_ARRAY)


def _codes(linear: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """sRGB codes of linear light (H, W, 3), clipped; uint8 by table, which is exact to a twentieth of a code."""
    linear = np.clip(linear, 0, 1)
    if dtype == np.uint8:
        linear *= 65534
        linear += 0.5
        return cv2.LUT(linear.astype(np.uint16), _CODE_OF_LUMINANCE)
    return np.rint(_encode(linear) * np.float32(np.iinfo(dtype).max)).astype(dtype)


def _cubic_rows(samples: np.ndarray, top: int, bottom: int, height: int) -> np.ndarray:
    """Rows ``top`` to ``bottom`` of ``samples`` (..., h, W) when they are enlarged to ``height`` rows by INTER_CUBIC.

    As OpenCV does it (Keys' kernel with a = -0.75, the border repeated), which can enlarge nothing but a whole array.
    """
    position = (np.arange(top, bottom) + 0.5) * (samples.shape[-2] / height) - 0.5
    taps = np.floor(position).astype(int)[:, None] + (-1, 0, 1, 2)
    d = np.abs(position[:, None] - taps)
    weights = np.where(d < 1, (1.25 * d - 2.25) * d * d + 1, ((-0.75 * d + 3.75) * d - 6) * d + 3)
    taps = taps.clip(0, samples.shape[-2] - 1)
    result = np.zeros((*samples.shape[:-2], bottom - top, samples.shape[-1]), np.float32)
    # Not as a product of matrices: the threads of BLAS would wait for each other and for ours, eight times as long.
    for tap in range(taps[0, 0], taps[-1, -1] + 1):
        weight = np.where(taps == tap, weights, 0).sum(1, dtype=np.float32)[:, None]
        rows = np.flatnonzero(weight)
        if rows.size:
            part = slice(rows[0], rows[-1] + 1)
            result[..., part, :] += weight[part] * samples[..., tap : tap + 1, :]
    return result


def colorfulness(rgb: Array) -> Array:
    """Hasler and Süsstrunk 2003, M3, in its signed form, of each image: 0 is grey, about 15 is hardly coloured,
    40 an average photograph, above 80 extremely colourful.

    With rg = R - G and yb = (R + G) / 2 - B of R, G, B in [0, 255],

        sqrt(var rg + var yb) + 0.3 sqrt((mean rg)² + (mean yb)²).

    (The form with absolute opponent values that some later papers use gives smaller figures.)

    Args:
        rgb: (..., 3, H, W), uint8 in [0, 255] or float in [0, 1].

    Returns:
        (...) float32.
    """
    xp = _namespace(rgb)
    scale = 1.0 if rgb.dtype == xp.uint8 else 255.0
    r, g, b = _planes(_float32(rgb) * scale)
    rg, yb = r - g, 0.5 * (r + g) - b

    def moments(x: Array) -> tuple[Array, Array]:
        mean = x.mean((-2, -1))
        return mean, ((x - mean[..., None, None]) ** 2).mean((-2, -1))

    (mean_rg, var_rg), (mean_yb, var_yb) = moments(rg), moments(yb)
    return xp.sqrt(var_rg + var_yb) + 0.3 * xp.sqrt(mean_rg**2 + mean_yb**2)


def own_colors(pixels: np.ndarray, side: int = 256, bins: int = 32) -> float:
    """Colorfulness beyond toning: how far the opponent colours stray from the usual ones at their luma.

    A sepia print is colourful to Hasler and Süsstrunk (30 and more), but its colour is a function of its lightness, and
    so nearly nothing is left here. Their deviations, rg = R - G and yb = (R + G)/2 - B, of each pixel from the mean of
    its luma bin: sqrt(var rg + var yb). Of 1,000 photographs three in four have 14 or more; of their copies in sepia,
    duotone and cyan, with noise and with yellowed borders, none (12.5, with borders 13.2 at most).

    Args:
        pixels: (H, W) grey or (H, W, 3) sRGB, uint8 or uint16.
        side: the photo is reduced to this long side, which takes its grain out.
        bins: of luma.
    """
    if pixels.ndim == 2:
        return 0.0
    scale = min(1.0, side / max(pixels.shape[:2]))
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    reduced = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).reshape(-1, 3)
    r, g, b = reduced.T.astype(np.float32) * np.float32(255 / np.iinfo(pixels.dtype).max)
    luma = ((0.299 * r + 0.587 * g + 0.114 * b) * (bins / 256)).astype(np.intp)
    count = np.maximum(np.bincount(luma, minlength=bins), 1)
    variance = 0.0
    for opponent in (r - g, 0.5 * (r + g) - b):
        usual = np.bincount(luma, opponent, bins) / count
        variance += float(((opponent - usual[luma]) ** 2).mean())
    return math.sqrt(variance)


def delta_e2000(lab1: Array, lab2: Array) -> Array:
    """CIEDE2000 colour difference of each pixel (Sharma, Wu and Dalal 2005; kL = kC = kH = 1).

    With the differences ΔL', ΔC' and ΔH' in lightness, chroma and hue, and SL, SC, SH, RT as that paper defines them,

        sqrt((ΔL'/SL)² + (ΔC'/SC)² + (ΔH'/SH)² + RT (ΔC'/SC) (ΔH'/SH)).

    Args:
        lab1, lab2: (..., 3, H, W), of the same shape.

    Returns:
        (..., H, W) float32, 0 for equal colours; about 1 is just noticeable.
    """
    xp = _namespace(lab1)
    L1, a1, b1 = _planes(_float32(lab1))
    L2, a2, b2 = _planes(_float32(lab2))

    def length(x: Array, y: Array) -> Array:
        square = x * x
        square += y * y
        return xp.sqrt(square)

    def root7(c: Array) -> Array:
        c7 = c**3
        c7 *= c7
        c7 *= c
        return xp.sqrt(c7 / (c7 + 25.0**7))

    stretch = root7((length(a1, b1) + length(a2, b2)) / 2)
    stretch *= -0.5
    stretch += 1.5
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = length(a1, b1), length(a2, b2)
    # Hues as unit vectors (zero for greys): their distance is 2 sin(Δh/2), and their sum points to the mean hue on the
    # shorter arc, without the cases of an angle that wraps.
    inverse1, inverse2 = 1 / c1.clip(min=1e-9), 1 / c2.clip(min=1e-9)
    x1, y1, x2, y2 = a1 * inverse1, b1 * inverse1, a2 * inverse2, b2 * inverse2
    dH, turn = xp.sqrt(c1 * c2) * length(x1 - x2, y1 - y2), xp.sign(x1 * y2 - y1 * x2)  # size and sign of ΔH'
    mean_h = xp.arctan2(-(y1 + y2), -(x1 + x2))
    mean_h += math.pi  # in [0, 2π]
    mean_C = (c1 + c2) / 2

    def wave(amplitude: float, times: int, degrees: float) -> Array:
        angle = mean_h * times
        angle += math.radians(degrees)
        result = xp.cos(angle)
        result *= amplitude
        return result

    s_H = wave(-0.17, 1, -30)
    s_H += wave(0.24, 2, 0)
    s_H += wave(0.32, 3, 6)
    s_H += wave(-0.20, 4, -63)
    s_H += 1
    s_H *= 0.015 * mean_C
    s_H += 1
    from_50 = ((L1 + L2) / 2 - 50) ** 2
    s_L = 1 + 0.015 * from_50 / xp.sqrt(20 + from_50)
    L, C, H = (L2 - L1) / s_L, (c2 - c1) / (1 + 0.045 * mean_C), dH / s_H
    # Without the limit most exponentials would be denormal numbers, which take CPUs a hundred times as long.
    bump = xp.exp(-((mean_h * (180 / math.pi / 25) - 275 / 25) ** 2).clip(max=50))
    rotation = -2 * xp.sin(math.radians(60) * bump) * root7(mean_C)
    return xp.sqrt((L * L + C * C + H * H + rotation * C * (turn * H)).clip(0))


def spread(log_shares: Array, centres: Array) -> Array:
    """How far the colours of a distribution lie apart: its standard deviation, sqrt(sum over q of p_q |c_q - mean|²).

    Args:
        log_shares: (..., Q, H, W) log-probabilities of the classes.
        centres: (Q, 2) a*b* of the classes, Lab units (:func:`ab_grid`).

    Returns:
        (..., H, W) float32 in Lab units, 0 where one class is sure.
    """
    xp = _namespace(log_shares)
    p, c = xp.exp(log_shares), centres.T[:, :, None, None]  # (..., Q, H, W) and (2, Q, 1, 1)
    squares = (p * (c * c).sum(0)).sum(-3)
    for axis in range(2):
        squares = squares - (p * c[axis]).sum(-3) ** 2
    return xp.sqrt(_float32(squares).clip(0))


def ab_grid(step: float) -> np.ndarray:
    """The colours on a square grid that sRGB has at some lightness, as classes of ab (Zhang et al. 2016).

    Args:
        step: distance of the grid's points, Lab units; 0 is one of them.

    Returns:
        (Q, 2) float32, a*b* in Lab units, by rising a* and then b*.
    """
    if not step > 0:
        raise InputError(f"grid={step}: should be above 0")
    axes = [
        step * np.arange(math.ceil(low / step), math.floor(high / step) + 1)
        for low, high in zip(AB_MIN, AB_MAX, strict=True)
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    L = np.arange(1, 100, dtype=np.float32)[:, None].repeat(len(points), 1)
    lab = np.stack((L, *np.broadcast_to(points.T[:, None], (2, *L.shape)).astype(np.float32)))
    return points[in_gamut(lab).any(0)].astype(np.float32)


PALETTE_STEP = 20.0  # distance of a palette's bins, Lab units
PALETTE_LENGTH = len(ab_grid(PALETTE_STEP)) + 2


def palette(ab: Array, shares: Array) -> Array:
    """Which colours there are, for a network that takes a palette (:class:`colorization.networks.hinted.HintedUNet`).

    Args:
        ab: (..., N, 2) float32 a*b*, Lab units.
        shares: (..., N) float32, how much of the picture each has; their sum is 1.

    Returns:
        (..., PALETTE_LENGTH) float32: the square root of the share of each bin of :func:`ab_grid`, to which a colour is
        shared out by its distance (Gaussian, half a step wide), and the mean normalised ab.
    """
    xp = _namespace(ab)
    centres = ab_grid(PALETTE_STEP)
    if xp is not np:
        centres = xp.from_numpy(centres).to(ab)
    squares = ((ab[..., :, None, :] - centres) ** 2).sum(-1)
    near = xp.exp(-squares / (2 * (PALETTE_STEP / 2) ** 2))
    bins = (shares[..., None] * near / near.sum(-1)[..., None]).sum(-2)
    return xp.concatenate((xp.sqrt(bins), (shares[..., None] * ab).sum(-2) / AB_SCALE), -1)


MERGES = ("mean", "median")


def merge_ab(members: Array, how: str | Sequence[float] = "mean") -> Array:
    """One ab from the answers of several networks.

    Args:
        members: (K, ..., 2, H, W) normalised.
        how: ``mean``; ``median``, of each channel by itself, of an even number of answers halfway between the middle
            two; or K weights.

    Returns:
        (..., 2, H, W) normalised.
    """
    if how == "mean":
        return members.mean(0)
    if how == "median":
        ordered = np.sort(members, 0) if _namespace(members) is np else members.sort(0).values
        return (ordered[(len(members) - 1) // 2] + ordered[len(members) // 2]) / 2
    return sum(weight * ab for weight, ab in zip(how, members, strict=True))


def disagreement(members: Array) -> Array:
    """How far answers lie apart: the standard deviation sqrt(mean over k of (a_k - mean a)² + (b_k - mean b)²).

    Args:
        members: (K, ..., 2, H, W) normalised.

    Returns:
        (..., H, W) float32 in Lab units, 0 where all agree (and for a single answer).
    """
    return AB_SCALE * _namespace(members).sqrt(((members - members.mean(0)) ** 2).sum(-3).mean(0))
