"""ganrun: config-driven GAN experiments. From Python, start with `ganrun.load_generator(path)`."""

from ganrun.light import lighten

__version__ = "0.1.0"
__all__ = ["__version__", "load_generator"]
lighten()


def __getattr__(name: str):
    if name == "load_generator":  # imports torch only when it is asked for
        from ganrun.sampling.generator_file import load_generator

        return load_generator
    raise AttributeError(f"module 'ganrun' has no attribute {name!r}")
