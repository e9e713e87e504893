"""The Metering Process (RFC 7011 section 2): FlowBatches into a flow table, Flow Records out of it."""
