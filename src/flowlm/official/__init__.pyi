from .folder import write_folder as write_folder
from .kind import is_official as is_official
from .released import Released as Released
from .released import read_released as read_released
