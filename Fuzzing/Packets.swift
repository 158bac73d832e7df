import GDBServer

/// Bytes from whoever connects to the debugger's port, in pieces.
func fuzzPackets(_ input: FuzzInput) {
    var input = input
    var reader = GDBPacketReader()
    while !input.isEmpty {
        _ = reader.read(input.bytes(Int(input.byte()) + 1))
    }
}
