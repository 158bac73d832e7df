// The network device: virtio 1.2, 5.1.

import VirtioQueue

extension VirtioFeatures {
    /// Feature bits (5.1.3).
    enum Net {
        static let checksum = VirtioFeatures(bit: 0)
        static let guestChecksum = VirtioFeatures(bit: 1)
        static let guestOffloads = VirtioFeatures(bit: 2)
        static let mtu = VirtioFeatures(bit: 3)
        static let mac = VirtioFeatures(bit: 5)
        static let guestTSO4 = VirtioFeatures(bit: 7)
        static let guestTSO6 = VirtioFeatures(bit: 8)
        static let guestECN = VirtioFeatures(bit: 9)
        static let hostTSO4 = VirtioFeatures(bit: 11)
        static let hostTSO6 = VirtioFeatures(bit: 12)
        static let hostECN = VirtioFeatures(bit: 13)
        static let mergeableBuffers = VirtioFeatures(bit: 15)
        static let status = VirtioFeatures(bit: 16)
        static let controlQueue = VirtioFeatures(bit: 17)
        static let controlReceive = VirtioFeatures(bit: 18)
        static let multiQueue = VirtioFeatures(bit: 22)
        static let controlMAC = VirtioFeatures(bit: 23)
    }
}

/// Commands of the control queue (5.1.6.5).
enum NetControl {
    static let receive: UInt8 = 0
    static let mac: UInt8 = 1
    static let macAddress: UInt8 = 1
    static let multiQueue: UInt8 = 4
    static let offloads: UInt8 = 5

    static let ok: UInt8 = 0
    static let error: UInt8 = 1
}

/// Status bits of the configuration (5.1.4).
enum NetStatus {
    static let linkUp: UInt16 = 1
}
