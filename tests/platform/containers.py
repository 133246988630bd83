"""Runs a pod as a container of the image: with its user, a read-only root, and the volumes of its specification."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.platform.kubernetes_api import Starts

# What is mounted is seen by the pod alone, and goes with its first process.
_NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
_AS_IN_THE_IMAGE = "PATH=/opt/devin-sessions/bin:/usr/bin:/bin HOME=/data DEVIN_HOME=/data XDG_CACHE_HOME=/tmp/cache"


def as_container(image: Path, files: Sequence[Path] = ()) -> Starts:
    """The way to run pods as containers of the image whose files are in this directory.

    `files`, which are in /tmp, each pod finds there too, as if a Secret were mounted.
    """

    def starts(spec: dict[str, Any], command: list[str], environment: dict[str, str], directory: Path) -> list[str]:
        (container,), pod = spec["containers"], spec["securityContext"]
        assert container["securityContext"]["readOnlyRootFilesystem"] and pod["runAsNonRoot"]
        lines = ["mkdir root", f"mount --bind '{image}' root", "mount -o remount,ro,bind root"]
        lines += ["mount -t proc proc root/proc", "mount --rbind /dev root/dev"]
        for mount in container["volumeMounts"]:
            (volume,) = (one for one in spec["volumes"] if one["name"] == mount["name"])
            if "emptyDir" in volume:
                own = directory / volume["name"]
                own.mkdir()
                lines.append(f"mount --bind '{own}' root{mount['mountPath']}")
                for file in files if mount["mountPath"] == "/tmp" else ():
                    shutil.copy(file, own)
                shutil.chown(own, pod["runAsUser"], pod["fsGroup"])
        user = f"{pod['runAsUser']}:{pod['runAsGroup']}"
        lines += [f"export {_AS_IN_THE_IMAGE}", "unset PYTHONPATH TMPDIR"]
        lines.append(
            f'exec /usr/bin/setpriv --no-new-privs /usr/sbin/chroot --userspec={user} root env --chdir=/data "$@"'
        )
        return [*_NAMESPACES, "sh", "-ec", "\n".join(lines), "pod", *command]

    return starts
