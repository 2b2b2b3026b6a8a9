"""The bare framework, as an ASGI application on the same server and threads: the lower bound of a view's cost.

`/bare` parses a JSON body, validates it with a serializer and answers; `/row` also inserts a row in a transaction.
"""

import gc
import os
import uuid
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connection, reset_queries, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "easel.settings")
django.setup()
settings.ROOT_URLCONF = __name__
settings.MIDDLEWARE = []

from asgiref.sync import markcoroutinefunction  # noqa: E402
from rest_framework import serializers  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

from core.threads import SHORT, in_thread  # noqa: E402


class Body(serializers.Serializer[Any]):
    prompt = serializers.CharField(max_length=1000)
    model = serializers.CharField(max_length=100)
    size = serializers.RegexField(r"\d+x\d+")
    n = serializers.IntegerField(min_value=1, max_value=10, default=1)


class Bare(APIView):
    authentication_classes: tuple[Any, ...] = ()
    permission_classes: tuple[Any, ...] = ()

    def post(self, request: Request) -> Response:
        fields = Body(data=request.data)
        fields.is_valid(raise_exception=True)
        job_id = uuid.uuid4()
        self.store(job_id, fields.validated_data["prompt"])
        return Response({"id": str(job_id), "status": "queued"}, status=202)

    def store(self, job_id: uuid.UUID, prompt: str) -> None:
        pass


class Row(Bare):
    def store(self, job_id: uuid.UUID, prompt: str) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("INSERT INTO bench_row (id, prompt) VALUES (%s, %s)", [job_id, prompt])


def _view(view: type[APIView]) -> Any:
    handle: Any = view.as_view()

    def rendered(request: HttpRequest) -> HttpResponse:
        answer = handle(request).render()
        return HttpResponse(answer.content, status=answer.status_code, headers=answer.headers)

    async def function(request: HttpRequest) -> HttpResponse:
        return await in_thread(rendered, request, threads=SHORT)

    function.csrf_exempt = True  # type: ignore[attr-defined]
    markcoroutinefunction(function)
    return function


urlpatterns = [path("bare", _view(Bare)), path("row", _view(Row))]
application = get_asgi_application()
gc.freeze()  # as Easel does
request_started.disconnect(reset_queries)
request_started.disconnect(close_old_connections)
request_finished.disconnect(close_old_connections)
