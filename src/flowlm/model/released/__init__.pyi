from .folder import write_folder as write_folder
from .kind import is_released as is_released
from .reading import Released as Released
from .reading import read_released as read_released
