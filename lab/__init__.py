"""The lab: systemd hosts in containers, as the Ansible inventory lists them."""
