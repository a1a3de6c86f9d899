"""Index rotation: build, verify, promote, rollback, prune; queries run all the while."""

import time
from collections.abc import Callable

import httpx
from redis import Redis

from headwater.bundle import Bundle, bundle_versions, remove_bundle
from headwater.errors import BundleError, RotationError, ServiceUnavailable
from headwater.generations import Alias, Generation, Generations
from headwater.settings import Settings
from headwater.verification import Check, VerificationReport

POLL_S = 0.1
BUILD_STALL_S = 60.0
VERIFY_TIMEOUT_S = 120.0
Progress = Callable[[int, int], None]


class Rotation:
    """The operator's verbs on index generations.

    Args:
        settings: Where Redis, the model repository and a server are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.generations = Generations(
            Redis.from_url(settings.redis_url.get_secret_value(), socket_connect_timeout=5), settings.names
        )

    def live(self) -> str | None:
        """Return the live bundle version."""
        return self.generations.alias().version

    def available(self) -> list[str]:
        """Return the versions in the model repository, oldest first."""
        return list(bundle_versions(self._settings.model_dir))

    def build(self, version: str, progress: Progress | None = None) -> Generation:
        """Have the stream workers embed every item with a bundle; return when they are done.

        Raises:
            BundleError: the bundle is missing or refused; nothing was requested.
            RotationError: the build failed, or no worker sent a heartbeat for a minute.
        """
        Bundle.load(self._settings.model_dir / version)
        self.generations.request(version)
        seen, deadline = (-1, -1), time.monotonic() + BUILD_STALL_S
        while (generation := self.generations.get(version)).state not in ("built", "failed"):
            if progress:
                progress(generation.embedded, generation.items)
            if (generation.embedded, generation.heartbeat_ms) != seen:
                seen, deadline = (generation.embedded, generation.heartbeat_ms), time.monotonic() + BUILD_STALL_S
            if time.monotonic() > deadline:
                raise RotationError(
                    f"{version}: no stream worker is embedding items; is `headwater stream` running, and does it see the "
                    f"bundles in {self._settings.model_dir}?"
                )
            time.sleep(POLL_S)
        if generation.state == "failed":
            raise RotationError(f"{version}: build failed: {generation.error}")
        return generation

    def verify(self, version: str, record: bool = True) -> VerificationReport:
        """Check the bundle's files here and the generation in a running server.

        Args:
            version: Of the generation.
            record: Store the result in the registry.

        Raises:
            UnknownGeneration: it was never built.
            ServiceUnavailable: no server answers at `serving_url`.
        """
        self.generations.get(version)
        try:
            Bundle.load(self._settings.model_dir / version)
        except BundleError as error:
            report = VerificationReport(
                version=version, checks=[Check(name="bundle", passed=False, measured=str(error), required="valid")]
            )
        else:
            report = self._verify_in_server(version)
        if record:
            self.generations.update(version, lambda known: known.model_copy(update={"verified": report.passed}))
        return report

    def _verify_in_server(self, version: str) -> VerificationReport:
        url, last_refusal = f"{self._settings.serving_url}/v1/generations/{version}/verify", ""
        while True:
            try:
                response = httpx.post(url, timeout=VERIFY_TIMEOUT_S)
            except httpx.TimeoutException:
                raise ServiceUnavailable(
                    f"the server at {self._settings.serving_url} did not answer within {VERIFY_TIMEOUT_S:.0f} s"
                ) from None
            except httpx.HTTPError as error:
                raise ServiceUnavailable(f"no server at {self._settings.serving_url}: {error}") from None
            if response.status_code == 200:
                return VerificationReport.model_validate_json(response.content)
            if response.status_code != 503 or response.text == last_refusal:  # no progress since the last attempt
                raise RotationError(f"{version}: the server refused to verify: {response.text}")
            last_refusal = response.text

    def promote(self, version: str, expected: Alias | None = None) -> None:
        """Make a generation live, if it verifies; the trainer may promote again.

        Args:
            version: What becomes live.
            expected: The alias as it was when this was decided; the present one by default.

        Raises:
            VerificationFailed: a check failed; the alias did not move.
            AliasMoved: somebody else promoted meanwhile.
        """
        # 1. Look at the alias. 2. Verify. 3. Move it only if nobody moved it since 1.
        expected = expected or self.generations.alias()
        self.verify(version).require()
        if expected.version != version or expected.promotions_paused:
            self.generations.move_alias(expected, version)

    def rollback(self, dry_run: bool = False) -> str:
        """Make the previous generation live again and return its version; the trainer promotes none until an operator does.

        It passed verification once, and a rollback must work without a server, so only its files are checked.

        Args:
            dry_run: Check, and move nothing.

        Raises:
            RotationError: there is no previous generation, or it was pruned.
            BundleError: its bundle is missing or refused: servers could not load it after a restart.
        """
        alias = self.generations.alias()
        if alias.previous is None:
            raise RotationError("there is no previous generation to roll back to")
        self.generations.get(alias.previous)
        Bundle.load(self._settings.model_dir / alias.previous)
        if not dry_run:
            self.generations.move_alias(alias, alias.previous, promotions_paused=True)
        return alias.previous

    def prunable(self, keep: int = 2) -> list[str]:
        """Return the versions `prune` would delete: all but the live, the previous and the newest `keep`."""
        alias = self.generations.alias()
        registered = {generation.version for generation in self.generations.all() if generation.state != "pruned"}
        versions = sorted(registered | set(self.available()))
        kept = {alias.version, alias.previous, *versions[-keep:]}
        return [version for version in versions if version not in kept]

    def prune(self, keep: int = 2) -> list[str]:
        """Prune what `prunable` names, unless it was promoted meanwhile: delete its files, and return the versions."""
        versions = [version for version in self.prunable(keep) if self.generations.prune(version)]
        for version in versions:
            remove_bundle(self._settings.model_dir, version)
        return versions
