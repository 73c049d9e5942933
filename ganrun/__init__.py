"""ganrun: config-driven GAN experiments. `ganrun.load_generator(path)` is the door from Python."""

__version__ = "0.1.0"
__all__ = ["__version__", "load_generator"]


def __getattr__(name: str):
    if name == "load_generator":  # torch is imported only by those who ask for it
        from ganrun.sampling.generator_file import load_generator

        return load_generator
    raise AttributeError(f"module 'ganrun' has no attribute {name!r}")
