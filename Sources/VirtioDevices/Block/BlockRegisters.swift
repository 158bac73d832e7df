// The block device: virtio 1.2, 5.2.

import VirtioQueue

extension VirtioFeatures {
    /// Feature bits (5.2.3).
    enum Block {
        static let segMax = VirtioFeatures(bit: 2)
        static let readOnly = VirtioFeatures(bit: 5)
        static let blockSize = VirtioFeatures(bit: 6)
        static let flush = VirtioFeatures(bit: 9)
        static let topology = VirtioFeatures(bit: 10)
        static let multiQueue = VirtioFeatures(bit: 12)
        static let discard = VirtioFeatures(bit: 13)
        static let writeZeroes = VirtioFeatures(bit: 14)
    }
}

/// Request types (5.2.6).
enum BlockRequestType {
    static let read: UInt32 = 0
    static let write: UInt32 = 1
    static let flush: UInt32 = 4
    static let getID: UInt32 = 8
    static let discard: UInt32 = 11
    static let writeZeroes: UInt32 = 13
}

/// What the last byte of a request says (5.2.6).
enum BlockStatus {
    static let ok: UInt8 = 0
    static let ioError: UInt8 = 1
    static let unsupported: UInt8 = 2
}

/// struct virtio_blk_req's header.
struct BlockRequestHeader: BitwiseCopyable {
    var type: UInt32 = 0
    var reserved: UInt32 = 0
    /// In units of 512 bytes, whatever the disk's block size.
    var sector: UInt64 = 0
}

/// struct virtio_blk_discard_write_zeroes.
struct BlockRange: BitwiseCopyable {
    /// Bit 0 of the flags: the space may be given back. Others are reserved.
    static let unmap: UInt32 = 1

    var sector: UInt64 = 0
    var sectorCount: UInt32 = 0
    var flags: UInt32 = 0
}
