"""`POST /akoya/rename/{connector}`: the user names one of several logins at a bank."""

from __future__ import annotations

from akoya_gateway.endpoints.csrf import require_csrf_token
from akoya_gateway.endpoints.grant_endpoint import GrantEndpoint
from akoya_gateway.endpoints.request import EndpointRequest
from akoya_gateway.errors import UserError
from akoya_gateway.grants.errors import UnknownGrant
from akoya_gateway.responses.response import Response, redirect_response


class RenameEndpoint(GrantEndpoint):
    """Gives a login a name."""

    async def __call__(self, request: EndpointRequest) -> Response:
        """Store the form's `name` for the login `grant` and redirect back (303). An empty name removes it.

        Raises:
            UserError: There is no session (401), the form is not the session's (403), or the owner has no such login
                (404).
        """
        session, owner = request.principal.session, request.principal.owner
        if session is None or owner is None:
            raise UserError("There is nothing to rename.", status=401, code="no-session", title="You are signed out")
        form = await request.fields()
        require_csrf_token(request.info, form, session, self.config.public_url)
        owner_grants = await self.grants.for_owner(owner)
        grant = owner_grants.find(request.path_params["connector"], form.get("grant"))
        if grant is None:
            raise UnknownGrant
        await self.grants.login_names.rename(grant, form.get("name", ""), owner_grants)
        target = self.done(form.get("return_to"), "renamed")
        return redirect_response(target, 303)
