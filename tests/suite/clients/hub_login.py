"""What JupyterHub's own PAM authenticator says of each name and password, one a line.

    hub_login.py FOLDER NAME PASSWORD [NAME PASSWORD...]

FOLDER has JupyterHub. The configuration is that of docs/pam.md, and so is the order: the hub asks for the name that it
is to use, then whether that name is allowed in.
"""
import asyncio
import sys

folder, *words = sys.argv[1:]
sys.path.insert(0, folder)

from jupyterhub.auth import PAMAuthenticator  # noqa: E402
from traitlets.config import Config  # noqa: E402

config = Config()
config.PAMAuthenticator.service = "jupyterhub"
config.PAMAuthenticator.open_sessions = False
config.Authenticator.allow_all = True
authenticator = PAMAuthenticator(config=config)
for name, password in zip(words[::2], words[1::2]):
    form = {"username": name, "password": password}
    entered = asyncio.run(authenticator.get_authenticated_user(None, form))
    print(entered["name"] if entered else "refused")
