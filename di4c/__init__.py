"""Di4C: few-step samplers for discrete diffusion, by distilling product teachers into mixture students.

Shape legend, used in every docstring:
    B batch · M mixture components (λ draws an example) · N target samples an example · D positions ·
    S states (vocabulary, mask included) · L dimension of λ · H feature width · P rows, i.e. chosen (b, d) pairs

Time t in [0, 1]: 0 clean, 1 noise, s < u < t. Losses in nats, summed over D, one value an example.
"""

__version__ = "0.1.0"

__all__ = ["load"]


def load(path, **options):
    """A trained model ready to sample: `di4c.load("runs/student").sample(16, steps=2)`; see evaluation/loaded.py."""
    from di4c.evaluation.loaded import load as load_model

    return load_model(path, **options)
