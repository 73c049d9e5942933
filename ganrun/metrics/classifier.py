"""classifier"""

class Classifier:
    def __init__(self, weights: str | None = None, cache: str | None = None): ...
