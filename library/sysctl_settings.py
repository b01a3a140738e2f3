#!/usr/bin/python
"""Keep kernel parameters in one file of sysctl.d, and in the running kernel."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sysctl_settings
short_description: Set kernel parameters now and at the next boot
description:
  - Keeps one file of C(/etc/sysctl.d), whole, and gives the running kernel the same values.
  - A parameter that has its value already is not written, so a host on which somebody else has to set
    it, like a container, is fine once they did.
  - Fails when the running kernel keeps another value.
options:
  path:
    description: The file. Without O(settings) it is removed; the running kernel then keeps its values.
    type: path
    required: true
  header:
    description: The comment at the top of the file, with its number signs.
    type: str
    default: ""
  settings:
    description: The values by the parameters' names, as in sysctl.d(5).
    type: dict
    required: true
attributes:
  check_mode:
    description: Changes nothing and says what would change.
    support: full
  diff_mode:
    description: Shows the file and the running values.
    support: full
author:
  - standfast
"""

EXAMPLES = r"""
- name: Let HAProxy bind to a virtual address that another balancer holds
  sysctl_settings:
    path: /etc/sysctl.d/50-standfast.conf
    settings:
      net.ipv4.ip_nonlocal_bind: 1
"""

RETURN = r"""
applied:
  description: The parameters whose running value was changed, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [net.ipv4.ip_nonlocal_bind]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast import files, sysctl


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            path=dict(type="path", required=True),
            header=dict(type="str", default=""),
            settings=dict(type="dict", required=True),
        ),
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    settings = {name: str(value) for name, value in module.params["settings"].items()}
    wanted = sysctl.render(module.params["header"], settings) if settings else ""

    running: dict[str, str] = {}
    for name, value in settings.items():
        try:
            running[name] = sysctl.path_of(name).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            module.fail_json(
                msg=f"settings.{name}: seen a kernel without this parameter; expected {value};"
                " mend: load the module that brings it, or enable the feature (for net.ipv6: IPv6)"
            )
    differing = [name for name, value in running.items() if not sysctl.same(value, settings[name])]
    found = files.read(path)

    if not module.check_mode:
        for name in differing:
            try:
                sysctl.path_of(name).write_text(settings[name], encoding="ascii")
            except OSError as error:
                module.fail_json(
                    msg=f"settings.{name}: seen {running[name]!r} in the running kernel, which refuses"
                    f" the change ({error.strerror}); expected {settings[name]!r}; mend: set it where the"
                    " kernel belongs to (for a container: on its host, or when it is created)"
                )
        if found != wanted:
            if wanted:
                files.write(path, wanted, mode=0o644)
            else:
                files.remove(path)

    def shown(values: dict[str, str]) -> str:
        return "".join(f"# running: {name} = {values[name]}\n" for name in differing)

    module.exit_json(
        changed=bool(differing) or found != wanted,
        applied=differing,
        diff={
            "before_header": str(path),
            "after_header": str(path),
            "before": found + shown(running),
            "after": wanted + shown(settings),
        },
    )


if __name__ == "__main__":
    main()
