"""The views of the Django app of `apps`."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, JsonResponse
from django.urls import path

from akoya_verify.django import requires_connection


def seen(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"owner": request.headers.get("Akoya-Owner"), "body": len(request.body)})


def raw(request: HttpRequest) -> JsonResponse:
    scope: Any = request.scope
    return JsonResponse({"names": [name.decode() for name, _ in scope["headers"]]})


@requires_connection("mikomo")
def mikomo(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"owner": request.akoya.owner, "token": request.akoya.id_token})


@requires_connection("mikomo")
async def mikomo_async(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"owner": request.akoya.owner, "token": request.akoya.id_token})


def optional(request: HttpRequest) -> JsonResponse:
    verified = request.akoya
    return JsonResponse({"owner": verified and verified.owner, "token": verified and verified.id_token})


urlpatterns = [
    path("seen", seen),
    path("exempt", seen),
    path("exempt/raw", raw),
    path("mikomo", mikomo),
    path("mikomo/async", mikomo_async),
    path("optional", optional),
]
