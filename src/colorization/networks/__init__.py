"""Plain ``nn.Module``s, ``forward(L) -> ab``: no Lightning, no devices, no downloads.

Contract of a generator: ``L`` is (B, 1, H, W) float32 in [0, 1] (L*/100), any B >= 1, any H, W >= 32; the answer is
(B, 2, H, W), normalised ab inside the sRGB box (:func:`.color.squash_ab`). (Not of a discriminator, nor of
the classifier in ``resnet``.)
"""
