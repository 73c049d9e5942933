"""features"""


class Values: ...
