import DavitTesting
import FileShares
import Glibc
import GuestMemory
import HostLinux
import VirtioDevices
import VirtioQueue

private let memory = try! GuestMemory(size: 8 << 20)

/// Those that hold something of the host's are made once.
private let vsock = try! VirtioVsock(name: "v", cid: 3, path: "/tmp/davit-fuzz-\(getpid())")
private let fileSystem: VirtioFS = {
    let path = "/tmp/davit-fuzz-share-\(getpid())"
    mkdir(path, 0o700)
    let server = try! FUSEServer(name: "f", path: path, isReadOnly: false)
    return VirtioFS(name: "f", tag: "t", server: server)
}()

private func device(_ number: UInt8) -> any VirtioDevice {
    switch number % 8 {
    case 0: VirtioBlock(disk: MemoryDisk(size: 64 << 10), name: "d", serial: "s", queueCount: 2) { _ in }
    case 1:
        VirtioBlock(disk: MemoryDisk(size: 64 << 10, isReadOnly: true), name: "d", serial: "s", queueCount: 1) { _ in }
    case 2: VirtioNet(port: MemoryPort(), name: "n", mac: [2, 0, 0, 0, 0, 1], pairCount: 2)
    case 3: VirtioEntropy(name: "e")
    case 4: VirtioBalloon(name: "b", memory: memory)
    case 5:
        VirtioConsole(
            name: "c",
            ports: [.init(channel: MemoryByteChannel()), .init(name: "p", channel: MemoryByteChannel())])
    case 6: vsock
    default: fileSystem
    }
}

/// A driver that sends what the input says, in the order that a device wants it or not, and at last resets the device.
func fuzzRequests(_ input: FuzzInput) {
    var input = input
    let device = device(input.byte())
    let bench = DeviceBench(device, memory: memory, size: 32, isPacked: input.byte() & 1 != 0)
    let data: UInt64 = 0x10_0000
    var steps = 0
    while !input.isEmpty, steps < 64 {
        steps += 1
        let step = input.byte()
        if step % 8 == 7 {
            device.writeConfiguration(offset: Int(input.byte()), input.bytes(Int(input.byte() % 9)))
            _ = device.configuration()
            continue
        }
        let index = Int(step >> 4) % device.queueSizes.count
        let buffers = (0...input.byte() % 4).map { _ in
            GuestBuffer(
                data + UInt64(input.byte()) * 16, UInt32(input.byte()) * (step & 8 == 0 ? 1 : 64),
                isWritable: input.byte() & 1 != 0)
        }
        bench.put(input.bytes(Int(input.byte())), at: data)
        bench.queues[index].add(buffers)
        device.notify(queue: index)
        while bench.queues[index].takeUsed() != nil {}
        if step == 0x5B { _ = bench.resetQueue(index) }
    }
    let isDone = Flag()
    device.reset { isDone.set() }
    for _ in 0..<20_000 where !isDone.isSet { usleep(100) }
    guard isDone.isSet else { fatalError("the reset does not end") }
}
