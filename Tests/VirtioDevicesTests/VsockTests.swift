import DavitTesting
import Glibc
import HostLinux
import Testing
import VirtioQueue

@testable import VirtioDevices

@Suite(.serialized) struct VsockTests {
    private let path = "/tmp/davit-vsock-\(getpid())"
    private let out: UInt64 = 0x10_0000
    private let into: UInt64 = 0x20_0000
    private let device: VirtioVsock
    private let bench: DeviceBench

    init() throws {
        device = try VirtioVsock(name: "vsock", cid: 3, path: path)
        bench = DeviceBench(device, size: 64)
        for index in 0..<32 as Range<UInt64> {
            bench.queues[0].add([GuestBuffer(into + index << 12, 4096, isWritable: true)])
        }
    }

    // MARK: the guest's hands

    private func header(
        _ operation: UInt16, hostPort: UInt32, guestPort: UInt32 = 7, length: UInt32 = 0, flags: UInt32 = 0,
        room: UInt32 = 1 << 20
    ) -> VsockHeader {
        var header = VsockHeader()
        header.sourceCID = 3
        header.destinationCID = 2
        header.sourcePort = guestPort
        header.destinationPort = hostPort
        header.length = length
        header.operation = operation
        header.flags = flags
        header.bufferSize = room
        return header
    }

    private func send(_ header: VsockHeader, _ data: [UInt8] = []) {
        bench.put(header.bytes + data, at: out)
        bench.queues[1].add([GuestBuffer(out, UInt32(VsockHeader.size + data.count))])
        bench.device.notify(queue: 1)
        #expect(wait { bench.queues[1].takeUsed() != nil })
    }

    private func wait(_ condition: () -> Bool) -> Bool {
        for _ in 0..<5000 {
            if condition() { return true }
            usleep(1000)
        }
        return false
    }

    /// The next packet for the guest; nil if none comes.
    private func receive() -> (header: VsockHeader, data: [UInt8])? {
        var used: (id: UInt16, written: UInt32)?
        guard
            wait({
                used = bench.queues[0].takeUsed()
                return used != nil
            }), let used
        else { return nil }
        let place = into + UInt64(used.id) << 12
        let bytes = bench.bytes(at: place, Int(used.written))
        bench.queues[0].add([GuestBuffer(place, 4096, isWritable: true)])
        bench.device.notify(queue: 0)
        guard let header = VsockHeader(Array(bytes.prefix(VsockHeader.size))) else { return nil }
        return (header, Array(bytes.dropFirst(VsockHeader.size)))
    }

    // MARK: the host's hands

    private func socketAddress(_ path: String, _ use: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { use($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
    }

    private func listen(_ path: String) -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        unlink(path)
        #expect(socketAddress(path) { bind(descriptor, $0, $1) } == 0 && Glibc.listen(descriptor, 5) == 0)
        return descriptor
    }

    private func dial(_ greeting: String) -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        #expect(socketAddress(path) { connect(descriptor, $0, $1) } == 0)
        _ = write(descriptor, greeting, greeting.utf8.count)
        return descriptor
    }

    private func read(_ descriptor: Int32, _ count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let got = Glibc.read(descriptor, &bytes, count)
        return Array(bytes.prefix(max(got, 0)))
    }

    @Test func theGuestReachesASocketOfTheHosts() throws {
        let listener = listen("\(path)_1234")
        send(header(VsockOperation.request, hostPort: 1234))
        #expect(receive()?.header.operation == VsockOperation.response)
        let host = accept(listener, nil, nil)
        send(header(VsockOperation.data, hostPort: 1234, length: 5), Array("hello".utf8))
        #expect(read(host, 100) == Array("hello".utf8))
        _ = write(host, "world", 5)
        let packet = try #require(receive())
        #expect(packet.header.operation == VsockOperation.data && packet.data == Array("world".utf8))
        #expect(packet.header.forwarded == 5 && packet.header.sourcePort == 1234)
        close(host)
        #expect(receive()?.header.operation == VsockOperation.shutdown)
        send(header(VsockOperation.shutdown, hostPort: 1234, flags: 3))
        #expect(receive()?.header.operation == VsockOperation.reset)
        close(listener)
        unlink("\(path)_1234")
        device.close()
    }

    @Test func aProgramOfTheHostsReachesTheGuest() throws {
        let host = dial("CONNECT 52\n")
        let request = try #require(receive()).header
        #expect(request.operation == VsockOperation.request && request.destinationPort == 52)
        send(header(VsockOperation.response, hostPort: request.sourcePort, guestPort: 52))
        #expect(read(host, 100) == Array("OK \(request.sourcePort)\n".utf8))
        // No more than the guest has room for.
        _ = write(host, "abcdefgh", 8)
        #expect(receive()?.data == Array("abcdefgh".utf8))
        send(header(VsockOperation.reset, hostPort: request.sourcePort, guestPort: 52))
        #expect(read(host, 1) == [])
        close(host)
        device.close()
    }

    @Test func creditHoldsDataBack() throws {
        let host = dial("CONNECT 52\n")
        let request = try #require(receive()).header
        send(header(VsockOperation.response, hostPort: request.sourcePort, guestPort: 52, room: 3))
        _ = read(host, 100)
        _ = write(host, "abcdefgh", 8)
        #expect(receive()?.data == Array("abc".utf8))
        var more = header(VsockOperation.creditUpdate, hostPort: request.sourcePort, guestPort: 52, room: 3)
        more.forwarded = 2
        send(more)
        #expect(receive()?.data == Array("de".utf8))
        // What no guest can have.
        more.forwarded = 1_000_000
        send(more)
        send(header(VsockOperation.creditRequest, hostPort: request.sourcePort, guestPort: 52, room: 0))
        #expect(receive()?.header.operation == VsockOperation.creditUpdate)
        close(host)
        device.close()
    }

    @Test func refusalsReachBothSides() throws {
        send(header(VsockOperation.request, hostPort: 9999))
        #expect(receive()?.header.operation == VsockOperation.reset)
        let host = dial("CONNECT 52\n")
        let request = try #require(receive()).header
        send(header(VsockOperation.reset, hostPort: request.sourcePort, guestPort: 52))
        #expect(read(host, 10) == [])
        for greeting in ["HELLO\n", "CONNECT x\n", "CONNECT 99999999999\n", String(repeating: "x", count: 100)] {
            let other = dial(greeting)
            #expect(read(other, 10) == [])
            close(other)
        }
        close(host)
        device.close()
    }

    /// 11: packets that make no sense are dropped or refused, and the next good one works.
    @Test func malformedPacketsDoNoHarm() throws {
        bench.queues[1].add([GuestBuffer(out, 10)])
        bench.queues[1].add([GuestBuffer(into, 100, isWritable: true)])
        bench.device.notify(queue: 1)
        #expect(wait { bench.queues[1].takeUsed() != nil } && wait { bench.queues[1].takeUsed() != nil })
        for operation in [0, 2, 4, 5, 6, 7, 8, 0xFFFF] as [UInt16] {
            send(header(operation, hostPort: 1, length: UInt32.max))
            #expect(receive()?.header.operation == VsockOperation.reset)
        }
        var foreign = header(VsockOperation.request, hostPort: 1)
        foreign.sourceCID = 99
        send(foreign)
        foreign.sourceCID = 3
        foreign.destinationCID = UInt64.max
        send(foreign)
        var kind = header(VsockOperation.request, hostPort: 1)
        kind.type = 77
        send(kind)
        #expect(receive()?.header.type == 77)
        // More data than the packet has, on a connection that stands.
        let listener = listen("\(path)_1")
        send(header(VsockOperation.request, hostPort: 1))
        #expect(receive()?.header.operation == VsockOperation.response)
        send(header(VsockOperation.data, hostPort: 1, length: UInt32.max), [1])
        #expect(receive()?.header.operation == VsockOperation.reset)
        close(listener)
        unlink("\(path)_1")
        device.close()
    }

    /// 10: a storm of connections that the guest does not answer, and requests to nowhere while it takes no packets.
    @Test func stormsAreHeldBack() {
        var hosts: [Int32] = []
        for _ in 0..<50 { hosts.append(dial("CONNECT 52\n")) }
        for _ in 0..<2000 {
            bench.put(header(VsockOperation.request, hostPort: 9).bytes, at: out)
            bench.queues[1].add([GuestBuffer(out, UInt32(VsockHeader.size))])
            bench.device.notify(queue: 1)
            _ = bench.queues[1].takeUsed()
        }
        for host in hosts { close(host) }
        let isDone = Flag()
        bench.device.reset { isDone.set() }
        #expect(wait { isDone.isSet })
        device.close()
    }
}
