//! The three local ciphers. The plain value comes out, or nothing.

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::consts::U12;
use aes_gcm::{AeadInOut, AesGcm, KeyInit};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit, StreamCipher};
use poly1305::Poly1305;
use salsa20::XSalsa20;

use super::provider::Provider;
use crate::objects::envelope::Envelope;

/// Bytes of the tag of AES-GCM and of Poly1305.
const TAG: usize = 16;
/// Bytes of the key stream that XSalsa20-Poly1305 takes for Poly1305's key.
const POLY_KEY: usize = 32;

/// Decrypts; `aad` is the etcd key, which AES-GCM binds the value to.
pub(super) fn decrypt(
    provider: Provider,
    secret: &[u8],
    aad: &[u8],
    data: &[u8],
) -> Option<Vec<u8>> {
    match provider {
        Provider::AesCbc => {
            let (iv, data) = data.split_at_checked(16)?;
            let plain = match secret.len() {
                16 => cbc_decrypt::<cbc::Decryptor<Aes128>>(secret, iv, data),
                24 => cbc_decrypt::<cbc::Decryptor<Aes192>>(secret, iv, data),
                _ => cbc_decrypt::<cbc::Decryptor<Aes256>>(secret, iv, data),
            }?;
            // CBC has no tag: with a wrong key, one value in 256 has a valid padding.
            let known = Envelope::parse(&plain).is_ok_and(|found| found != Envelope::Other);
            known.then_some(plain)
        }
        Provider::AesGcm => {
            let (nonce, data) = data.split_at_checked(12)?;
            match secret.len() {
                16 => gcm_decrypt::<AesGcm<Aes128, U12>>(secret, nonce, aad, data),
                24 => gcm_decrypt::<AesGcm<Aes192, U12>>(secret, nonce, aad, data),
                _ => gcm_decrypt::<AesGcm<Aes256, U12>>(secret, nonce, aad, data),
            }
        }
        Provider::Secretbox => secretbox_decrypt(secret, data),
    }
}

fn cbc_decrypt<C: KeyIvInit + BlockModeDecrypt>(
    secret: &[u8],
    iv: &[u8],
    data: &[u8],
) -> Option<Vec<u8>> {
    let cipher = C::new_from_slices(secret, iv).ok()?;
    let mut plain = data.to_vec();
    let len = cipher.decrypt_padded::<Pkcs7>(&mut plain).ok()?.len();
    plain.truncate(len);
    Some(plain)
}

fn gcm_decrypt<C: AeadInOut + KeyInit>(
    secret: &[u8],
    nonce: &[u8],
    aad: &[u8],
    data: &[u8],
) -> Option<Vec<u8>> {
    let cipher = C::new_from_slice(secret).ok()?;
    let (data, tag) = data.split_at_checked(data.len().checked_sub(TAG)?)?;
    let mut plain = data.to_vec();
    let (nonce, tag) = (nonce.try_into().ok()?, tag.try_into().ok()?);
    let opened = cipher.decrypt_inout_detached(nonce, aad, plain.as_mut_slice().into(), tag);
    opened.ok().map(|()| plain)
}

/// NaCl's secretbox: the tag, then the cipher text. The key stream's first 32 bytes are Poly1305's key
/// (golang.org/x/crypto, `nacl/secretbox`).
fn secretbox_decrypt(secret: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let (nonce, data) = data.split_at_checked(24)?;
    let (tag, sealed) = data.split_at_checked(TAG)?;
    let mut stream = XSalsa20::new_from_slices(secret, nonce).ok()?;
    let mut key = [0; POLY_KEY];
    stream.apply_keystream(&mut key);
    let computed = Poly1305::new(&key.into()).compute_unpadded(sealed);
    // Nobody waits for the answer and measures the time: a plain comparison does.
    if computed.as_slice() != tag {
        return None;
    }
    let mut plain = sealed.to_vec();
    stream.apply_keystream(&mut plain);
    Some(plain)
}
