"""The interchangeable parts of an ablation: messages, updates, aggregations and readouts, each by its name."""

from vsgae.modules.aggregations import AGGREGATIONS
from vsgae.modules.messages import MESSAGES
from vsgae.modules.readouts import READOUTS
from vsgae.modules.updates import UPDATES

__all__ = ["AGGREGATIONS", "MESSAGES", "READOUTS", "UPDATES"]
