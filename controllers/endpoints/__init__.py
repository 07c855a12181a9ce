"""Which pods stand behind which service, as EndpointSlices and, for old clients, as Endpoints.

:mod:`~controllers.endpoints.members` tells what a pod contributes to a service, ``slices`` packs that into slices with as
few writes as possible, ``subsets`` into one Endpoints object; ``selecting`` follows services and pods for both.
``mirroring`` makes slices of the Endpoints that people write for services without a selector.
"""
