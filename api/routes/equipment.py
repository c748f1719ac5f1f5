"""Homes, hubs, devices, and what became of what the hubs published."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from api.access import CurrentPrincipal
from api.documents import HubLedger, Page
from api.records import Device, Home, Hub
from api.routes.parameters import (
    LIMIT_DEFAULT,
    PREFIX,
    AfterDevice,
    AfterHub,
    AfterId,
    ArchiveOfApp,
    HomeFilter,
    Limit,
    json_response,
    page_of,
)

router = APIRouter(prefix=PREFIX, tags=["设备 / equipment"])


@router.get(
    "/homes",
    summary="家庭列表 / homes",
    response_model=Page[Home],
)
async def list_homes(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    after: AfterId = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """List homes in the order of their ids."""
    items = await archive.homes(principal, after, limit + 1)
    return json_response(page_of(items, limit, key=lambda home: home.id))


@router.get(
    "/hubs",
    summary="网关列表 / hubs",
    response_model=Page[Hub],
)
async def list_hubs(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    home: HomeFilter = None,
    after: AfterHub = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """List hubs, all or one home's, in the order of their names."""
    items = await archive.hubs(principal, home, after, limit + 1)
    return json_response(page_of(items, limit, key=lambda hub: hub.name))


@router.get(
    "/devices",
    summary="设备列表 / devices",
    response_model=Page[Device],
)
async def list_devices(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    home: HomeFilter = None,
    after: AfterDevice = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """List devices, all or one home's, in the order of their addresses."""
    items = await archive.devices(principal, home, after, limit + 1)
    return json_response(page_of(items, limit, key=lambda device: device.address))


@router.get(
    "/ledger",
    summary="账目 / ledger",
    response_model=Page[HubLedger],
)
async def read_ledger(
    archive: ArchiveOfApp,
    principal: CurrentPrincipal,
    after: AfterHub = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """Tell what became of what each hub published, in the order of the hubs' names."""
    items = await archive.ledger(principal, after, limit + 1)
    return json_response(page_of(items, limit, key=lambda entry: entry.hub))
