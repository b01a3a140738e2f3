"""Documentation of the action plugin host_files, which runs on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Render and copy files to a host, all of them or none
description:
  - Renders templates and reads static files on the control machine and compares and places all of them on the host in
    one call, so that files that are as they should be cost one round trip together.
  - Nothing is placed if a validation command refuses anything. Each file is replaced as a whole and durably.
  - Missing folders above a file are made, as root's and with mode 0755.
  - A link is replaced by the file; what it pointed to stays.
options:
  files:
    description: The files, each from exactly one of O(files[].template), O(files[].copy), O(files[].tree) and O(files[].program).
    type: list
    elements: dict
    required: true
    suboptions:
      template:
        description: A template, looked for like those of M(ansible.builtin.template), and rendered like them.
        type: str
      copy:
        description: A text file (UTF-8) that is placed as it is, looked for like those of M(ansible.builtin.copy).
        type: str
      tree:
        description:
          - A folder beside such files. Everything below it is placed below O(files[].dest), with mode 0755 if it is
            executable, else 0644.
        type: str
      program:
        description:
          - A module of the package C(standfast) that has a C(main()). A launcher for it is placed at O(files[].dest),
            and the module with what it imports of the package below C(/usr/local/lib/standfast).
        type: str
      dest:
        description: The absolute path on the host.
        type: path
        required: true
      owner:
        description: The user whom the file belongs to.
        type: str
        default: root
      group:
        description: The group that the file belongs to.
        type: str
        default: root
      mode:
        description: The permissions, four octal digits. Without it 0644.
        type: str
      validate:
        description:
          - A command that must succeed before anything is placed; it runs if this file differs, not in check mode.
          - C(%s) stands for the file as it would be placed, beside its destination under another name. An argument that
            is the destination of another file of this call stands for that one as it would be placed.
        type: str
      secret:
        description:
          - Whether the content stays out of the diff and of the results. What a validation command says is shown
            without the values that stand in secret files.
        type: bool
        default: false
  directories:
    description: Directories, for those that are not root's with mode 0755 or that stay empty. They are made first.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The absolute path on the host.
        type: path
        required: true
      owner:
        description: The user whom it belongs to.
        type: str
        default: root
      group:
        description: The group that it belongs to.
        type: str
        default: root
      mode:
        description: The permissions, four octal digits.
        type: str
        default: "0755"
author:
  - standfast
attributes:
  check_mode:
    support: full
    description: Predicts every change. An owner or group that is not there yet counts as one.
  diff_mode:
    support: full
    description: Contents, unless they are secret, and permissions.
"""

EXAMPLES = r"""
- name: Configure HAProxy
  host_files:
    files:
      - tree: root
        dest: /
      - template: users.cfg.j2
        dest: /etc/haproxy/users.cfg
        mode: "0600"
        secret: true
      - template: haproxy.cfg.j2
        dest: /etc/haproxy/haproxy.cfg
        validate: /usr/sbin/haproxy -c -f /etc/haproxy/users.cfg -f %s
      - program: backup_check
        dest: /usr/local/sbin/standfast-backup-check
  register: __haproxy_files
  notify: Reload haproxy
"""

RETURN = r"""
changed_paths:
  description: The files and directories that were made, replaced or given other permissions.
  returned: success
  type: list
  elements: str
  sample: [/etc/haproxy/haproxy.cfg]
"""
