"""What every fab task says of an inventory that it does not accept, and of its own defects."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ansible.errors import AnsibleError
from invoke.exceptions import Exit
from standfast.connections import RouteError
from standfast.drill.hosts import HostError
from standfast.drill.refusal import RefusedError
from standfast.errors import InvalidInput

UNKNOWN, REFUSED = 2, 3


@contextmanager
def refusals(inventory: str) -> Iterator[None]:
    """Exit with 3 and one message for what is refused before anything is touched, with 2 where the task itself broke."""
    try:
        yield
    except InvalidInput as error:
        raise Exit(error.report(f"{inventory}:", "no host was asked"), code=REFUSED) from error
    except (AnsibleError, RouteError, HostError, RefusedError) as error:
        raise Exit(f"{inventory}: {error}", code=REFUSED) from error
    except Exit:
        raise
    except Exception as error:
        # Python would leave with 1, which says that the service failed.
        traceback.print_exc()
        raise Exit(f"{inventory}: a defect of standfast itself; nothing is proven", code=UNKNOWN) from error
