"""The IANA IPFIX registry: names, numbers and types of Information Elements, to decode other exporters' Templates.

Elements that flowtop exports are in flowtop/model/elements.py, with units and meaning; this is the rest of the
registry. It is parsed when the first element is looked up. Reverse elements (RFC 5103) are derived from the forward
ones.
"""

from __future__ import annotations

from functools import cache

from flowtop.model.elements import Element

REVERSE_ENTERPRISE = 29305
"""Private enterprise number of reverse elements (RFC 5103)."""

_BY_TYPE = {
    "basicList": "basicList=291",
    "subTemplateList": "subTemplateList=292",
    "subTemplateMultiList": "subTemplateMultiList=293",
    "boolean": """
        dataRecordsReliability=276 hashDigestOutput=333 dot1qDEI=388 dot1qCustomerDEI=389
    """,
    "dateTimeMicroseconds": """
        flowStartMicroseconds=154 flowEndMicroseconds=155 maxFlowEndMicroseconds=268
        minFlowStartMicroseconds=271 observationTimeMicroseconds=324
    """,
    "dateTimeMilliseconds": """
        flowStartMilliseconds=152 flowEndMilliseconds=153 systemInitTimeMilliseconds=160
        collectionTimeMilliseconds=258 maxFlowEndMilliseconds=269 minFlowStartMilliseconds=272
        observationTimeMilliseconds=323 monitoringIntervalStartMilliSeconds=359
        monitoringIntervalEndMilliSeconds=360
    """,
    "dateTimeNanoseconds": """
        flowStartNanoseconds=156 flowEndNanoseconds=157 maxFlowEndNanoseconds=270 minFlowStartNanoseconds=273
        observationTimeNanoseconds=325
    """,
    "dateTimeSeconds": """
        flowStartSeconds=150 flowEndSeconds=151 maxExportSeconds=260 maxFlowEndSeconds=261 minExportSeconds=264
        minFlowStartSeconds=265 observationTimeSeconds=322
    """,
    "float64": """
        samplingProbability=311 absoluteError=320 relativeError=321 upperCILimit=336 lowerCILimit=337
        confidenceLevel=338
    """,
    "ipv4Address": """
        sourceIPv4Address=8 destinationIPv4Address=12 ipNextHopIPv4Address=15 bgpNextHopIPv4Address=18
        ipv4RouterSc=43 sourceIPv4Prefix=44 destinationIPv4Prefix=45 mplsTopLabelIPv4Address=47
        exporterIPv4Address=130 collectorIPv4Address=211 postNATSourceIPv4Address=225
        postNATDestinationIPv4Address=226 staIPv4Address=366 originalExporterIPv4Address=403
        pseudoWireDestinationIPv4Address=432
    """,
    "ipv6Address": """
        sourceIPv6Address=27 destinationIPv6Address=28 ipNextHopIPv6Address=62 bgpNextHopIPv6Address=63
        exporterIPv6Address=131 mplsTopLabelIPv6Address=140 destinationIPv6Prefix=169 sourceIPv6Prefix=170
        collectorIPv6Address=212 postNATSourceIPv6Address=281 postNATDestinationIPv6Address=282
        originalExporterIPv6Address=404
    """,
    "macAddress": """
        sourceMacAddress=56 postDestinationMacAddress=57 destinationMacAddress=80 postSourceMacAddress=81
        staMacAddress=365 wtpMacAddress=367 dot1qCustomerSourceMacAddress=414
        dot1qCustomerDestinationMacAddress=415
    """,
    "octetArray": """
        mplsTopLabelStackSection=70 mplsLabelStackSection2=71 mplsLabelStackSection3=72
        mplsLabelStackSection4=73 mplsLabelStackSection5=74 mplsLabelStackSection6=75 mplsLabelStackSection7=76
        mplsLabelStackSection8=77 mplsLabelStackSection9=78 mplsLabelStackSection10=79
        mplsVpnRouteDistinguisher=90 applicationId=95 layer2packetSectionData=104 paddingOctets=210
        messageMD5Checksum=262 opaqueOctets=266 collectorCertificate=274 exporterCertificate=275
        ipHeaderPacketSection=313 ipPayloadPacketSection=314 dataLinkFrameSection=315 mplsLabelStackSection=316
        mplsPayloadPacketSection=317 virtualStationInterfaceId=347 virtualStationUUID=349
        dot1qServiceInstanceTag=411
    """,
    "string": """
        interfaceName=82 interfaceDescription=83 samplerName=84 applicationDescription=94 applicationName=96
        className=100 wlanSSID=147 VRFname=236 metroEvcId=247 natPoolName=284 p2pTechnology=288
        tunnelTechnology=289 encryptedTechnology=290 observationDomainName=300 selectorName=335
        informationElementDescription=340 informationElementName=341 virtualStationInterfaceName=348
        virtualStationName=350 userName=371 applicationCategoryName=372 applicationSubCategoryName=373
        applicationGroupName=374
    """,
    "unsigned16": """
        tcpControlBits=6 sourceTransportPort=7 destinationTransportPort=11 icmpTypeCodeIPv4=32
        flowActiveTimeout=36 flowIdleTimeout=37 vlanId=58 postVlanId=59 fragmentOffset=88
        layer2packetSectionOffset=102 layer2packetSectionSize=103 icmpTypeCodeIPv6=139 templateId=145
        udpSourcePort=180 udpDestinationPort=181 tcpSourcePort=182 tcpDestinationPort=183 tcpWindowSize=186
        tcpUrgentPointer=187 totalLengthIPv4=190 payloadLengthIPv6=191 udpMessageLength=205
        collectorTransportPort=216 exporterTransportPort=217 postNAPTSourceTransportPort=227
        postNAPTDestinationTransportPort=228 tcpWindowScale=238 ethernetPayloadLength=241
        ethernetTotalLength=242 dot1qVlanId=243 dot1qCustomerVlanId=245 pseudoWireType=250 postDot1qVlanId=254
        postDot1qCustomerVlanId=255 ethernetType=256 exportSctpStreamId=259 anonymizationFlags=285
        anonymizationTechnique=286 informationElementIndex=287 informationElementId=303 selectorAlgorithm=304
        dataLinkFrameSize=312 informationElementUnits=345 portRangeStart=361 portRangeEnd=362
        portRangeStepSize=363 portRangeNumPorts=364 rtpSequenceNumber=370 flowSelectorAlgorithm=390
        hashFlowDomain=400 dataLinkFrameType=408 sectionOffset=409 sectionExportedOctets=410
    """,
    "unsigned32": """
        ingressInterface=10 egressInterface=14 bgpSourceAsNumber=16 bgpDestinationAsNumber=17
        flowEndSysUpTime=21 flowStartSysUpTime=22 flowLabelIPv6=31 samplingInterval=34 samplerRandomInterval=50
        fragmentIdentification=54 ipv6ExtensionHeaders=64 flagsAndSamplerId=87 forwardingStatus=89
        srcTrafficIndex=92 dstTrafficIndex=93 multicastReplicationFactor=99 bgpNextAdjacentAsNumber=128
        bgpPrevAdjacentAsNumber=129 lineCardId=141 portId=142 meteringProcessId=143 exportingProcessId=144
        observationDomainId=149 flowStartDeltaMicroseconds=158 flowEndDeltaMicroseconds=159
        flowDurationMilliseconds=161 flowDurationMicroseconds=162 tcpSequenceNumber=184
        tcpAcknowledgementNumber=185 mplsPayloadLength=194 mplsLabelStackLength=201 mplsLabelStackDepth=202
        ipPayloadLength=204 ipv4Options=208 exportInterface=213 ingressVRFID=234 egressVRFID=235
        pseudoWireId=249 pseudoWireControlWord=251 ingressPhysicalInterface=252 egressPhysicalInterface=253
        connectionCountNew=278 natPoolId=283 IPSecSPI=295 greKey=296 samplingPacketInterval=305
        samplingPacketSpace=306 samplingTimeInterval=307 samplingTimeSpace=308 samplingSize=309
        samplingPopulation=310 privateEnterpriseNumber=346 ingressInterfaceType=368 egressInterfaceType=369
        distinctCountOfSourceIPv4Address=380 distinctCountOfDestinationIPv4Address=381
        rfc3550JitterMilliseconds=385 rfc3550JitterMicroseconds=386 rfc3550JitterNanoseconds=387
        originalObservationDomainId=405 intermediateProcessId=406 dot1qServiceInstanceId=412
    """,
    "unsigned64": """
        octetDeltaCount=1 packetDeltaCount=2 deltaFlowCount=3 postMCastPacketDeltaCount=19
        postMCastOctetDeltaCount=20 postOctetDeltaCount=23 postPacketDeltaCount=24 minimumIpTotalLength=25
        maximumIpTotalLength=26 exportedOctetTotalCount=40 exportedMessageTotalCount=41
        exportedFlowRecordTotalCount=42 octetTotalCount=85 packetTotalCount=86 droppedOctetDeltaCount=132
        droppedPacketDeltaCount=133 droppedOctetTotalCount=134 droppedPacketTotalCount=135
        commonPropertiesId=137 observationPointId=138 flowId=148 observedFlowTotalCount=163
        ignoredPacketTotalCount=164 ignoredOctetTotalCount=165 notSentFlowTotalCount=166
        notSentPacketTotalCount=167 notSentOctetTotalCount=168 postOctetTotalCount=171 postPacketTotalCount=172
        flowKeyIndicator=173 postMCastPacketTotalCount=174 postMCastOctetTotalCount=175
        octetDeltaSumOfSquares=198 octetTotalSumOfSquares=199 tcpOptions=209 tcpSynTotalCount=218
        tcpFinTotalCount=219 tcpRstTotalCount=220 tcpPshTotalCount=221 tcpAckTotalCount=222 tcpUrgTotalCount=223
        ipTotalLength=224 initiatorOctets=231 responderOctets=232 connectionSumDurationSeconds=279
        connectionTransactionId=280 initiatorPackets=298 responderPackets=299 selectionSequenceId=301
        selectorId=302 selectorIdTotalPktsObserved=318 selectorIdTotalPktsSelected=319 digestHashValue=326
        hashIPPayloadOffset=327 hashIPPayloadSize=328 hashOutputRangeMin=329 hashOutputRangeMax=330
        hashSelectedRangeMin=331 hashSelectedRangeMax=332 hashInitialiserValue=334
        informationElementRangeBegin=342 informationElementRangeEnd=343 layer2SegmentId=351
        layer2OctetDeltaCount=352 layer2OctetTotalCount=353 ingressUnicastPacketTotalCount=354
        ingressMulticastPacketTotalCount=355 ingressBroadcastPacketTotalCount=356
        egressUnicastPacketTotalCount=357 egressBroadcastPacketTotalCount=358 originalFlowsPresent=375
        originalFlowsInitiated=376 originalFlowsCompleted=377 distinctCountOfSourceIPAddress=378
        distinctCountOfDestinationIPAddress=379 distinctCountOfSourceIPv6Address=382
        distinctCountOfDestinationIPv6Address=383 flowSelectedOctetDeltaCount=391
        flowSelectedPacketDeltaCount=392 flowSelectedFlowDeltaCount=393 selectorIDTotalFlowsObserved=394
        selectorIDTotalFlowsSelected=395 samplingFlowInterval=396 samplingFlowSpacing=397
        flowSamplingTimeInterval=398 flowSamplingTimeSpacing=399 transportOctetDeltaCount=401
        transportPacketDeltaCount=402 ignoredDataRecordTotalCount=407 postLayer2OctetDeltaCount=417
        postMCastLayer2OctetDeltaCount=418 postLayer2OctetTotalCount=420 postMCastLayer2OctetTotalCount=421
        minimumLayer2TotalLength=422 maximumLayer2TotalLength=423 droppedLayer2OctetDeltaCount=424
        droppedLayer2OctetTotalCount=425 ignoredLayer2OctetTotalCount=426 notSentLayer2OctetTotalCount=427
        layer2OctetDeltaSumOfSquares=428 layer2OctetTotalSumOfSquares=429 layer2FrameDeltaCount=430
        layer2FrameTotalCount=431 ignoredLayer2FrameTotalCount=433
    """,
    "unsigned8": """
        protocolIdentifier=4 ipClassOfService=5 sourceIPv4PrefixLength=9 destinationIPv4PrefixLength=13
        sourceIPv6PrefixLength=29 destinationIPv6PrefixLength=30 igmpType=33 samplingAlgorithm=35 engineType=38
        engineId=39 mplsTopLabelType=46 samplerId=48 samplerMode=49 classId=51 minimumTTL=52 maximumTTL=53
        postIpClassOfService=55 ipVersion=60 flowDirection=61 mplsTopLabelPrefixLength=91
        postIpDiffServCodePoint=98 classificationEngineId=101 flowEndReason=136 wlanChannelId=146
        icmpTypeIPv4=176 icmpCodeIPv4=177 icmpTypeIPv6=178 icmpCodeIPv6=179 tcpHeaderLength=188
        ipHeaderLength=189 ipTTL=192 nextHeaderIPv6=193 ipDiffServCodePoint=195 ipPrecedence=196
        fragmentFlags=197 mplsTopLabelTTL=200 mplsTopLabelExp=203 isMulticast=206 ipv4IHL=207
        exportProtocolVersion=214 exportTransportProtocol=215 natOriginatingAddressRealm=229 natEvent=230
        firewallEvent=233 postMplsTopLabelExp=237 biflowDirection=239 ethernetHeaderLength=240 dot1qPriority=244
        dot1qCustomerPriority=246 metroEvcType=248 postIpPrecedence=257 messageScope=263 sessionScope=267
        observationPointType=277 bgpValidityState=294 natType=297 informationElementDataType=339
        informationElementSemantics=344 valueDistributionMethod=384 dot1qServiceInstancePriority=413
    """,
}


@cache
def _registry() -> dict[int, Element]:
    pairs = ((type_, pair.partition("=")) for type_, names in _BY_TYPE.items() for pair in names.split())
    return {int(number): Element(name, int(number), type_) for type_, (name, _, number) in pairs}


def registered(number: int, enterprise: int = 0) -> Element | None:
    """The registered element; with REVERSE_ENTERPRISE its reverse. None if unknown, or of another enterprise."""
    if enterprise not in (0, REVERSE_ENTERPRISE):
        return None
    element = _registry().get(number)
    if element is None or enterprise == 0:
        return element
    return Element(f"reverse{element.name[0].upper()}{element.name[1:]}", number, element.type, enterprise=enterprise)


@cache
def _registry_by_name() -> dict[str, Element]:
    return {element.name: element for element in _registry().values()}


def names() -> list[str]:
    """Every name of the registry."""
    return list(_registry_by_name())


def named(name: str) -> Element | None:
    """The registry's entry of that name; of a reverse element (RFC 5103) the derived one. None: there is none."""
    element = _registry_by_name().get(name)
    if element is not None or not name.startswith("reverse"):
        return element
    forward = name.removeprefix("reverse")
    element = _registry_by_name().get(forward[:1].lower() + forward[1:])
    return None if element is None else registered(element.number, REVERSE_ENTERPRISE)
