/** A key and a signature by it for each algorithm, known to be good: by these a runtime shows that it can check the algorithm at all. Needs no Node. */
import type { JsonObject } from '../json.ts';
import type { JwtAlgorithmName } from './jwt-algorithm.ts';

/** What was signed. Keys and signatures are made by test/vectors/keys.ts out of the same words. */
export const KNOWN_WORDS = 'known answer';

const RSA: JsonObject = {
  kty: 'RSA',
  n: 'z5ng9EJukqr0u4lQhJEIbx-cONsCrZ7g6i7nmG4jDwTDZbd3DDBgy5JhI8yT8wW18DqfJDqEuBTHmmnqN6yOs9P0FDC_jo6AIEUz-T2FjdkNOZfwHYP1IgCJoo23WWmtiv50LlREE6c7k5W1r8psO8naRnGd-GxR-OR7avbf1b8xRXrnYF-voU7iiaSLXvR9pya3m1xM8qXc2RsnLmMD-hQxW-S_JDkqZDivY1o-3P8V-y1AXmHoNmvOk_CoSqAl4v64f5WDK3f6V-o2k4Mq3H7NiFjSns42n0omTXM5LfUK0oi6NBS3CZdwVI6glLgnVxsN4k1RTLL98Wt6wKWVeQ',
  e: 'AQAB',
};

/** Of the key: a JWK. */
export const KNOWN_ANSWERS: Readonly<Record<JwtAlgorithmName, { readonly jwk: JsonObject; readonly signature: string }>> = {
  RS256: {
    jwk: RSA,
    signature:
      'noCqiS7QdMQsSSSy0e7VpTG944Bmp_oMx3FRThrjm3qxI3053uc0Zs0dQIJlBL0gwUTp8eptIFFyO_Pa2NBnUAEWQSOkeBbDUvooIRtbShk-bBYLM-r0yF0zljx1rABQQxfat77JTsXjSn1zmoxm3MLzeckeEMqF5begySnteTMOvZOCtqtb5M9aiFmaScs_5fWCMz11jFLLM3q7Xr7bkOs-Qx26Pzml5rINk20zGI9D-bWGVstUbGahThOSFwwrkuVdqsCrLA5fwEJB_hP8399oSXvhRUycNQNDqCdLNyQnaCLG_3W_BwOki3DtcudM8XjBdzB7CjWM_pqcxW1GlQ',
  },
  RS384: {
    jwk: RSA,
    signature:
      'D1zsoTX2y2XA0StM2QFwBTgty7eSzPbDDIjA7IvACxrnjI8v2I8G7scbheAS45rsZyVmofOXo68sMMDN8VbMP45c8b3diHn6HoQxIVPZey2_vgU-R2NqzPjV-ktaORnbfu_x3Rmbh1u-hfsbLwRLVxOYtjg7TNfXOJsqDngifpGxEkIDjpasV7oRRAQZ7qZHGNvZVzqtDvVkBvg51-o9iTtN0mYhhCHcJQg8F7iXffzwAaIjEe1PTcZ8JpclRhumoQqa5MsWtOAXDeqZRNkWwVlbk6pZ6qJrzirk5-0xtLoE5Zv5CwhISROm45zK1MZnJhTArhhGR7ue0L_MZXoXSw',
  },
  RS512: {
    jwk: RSA,
    signature:
      'xqVgq87EFpVQUKbQw5oNyYLjsWRsR8tOhwJuxK28tzg9E-226KBDXN4uyeWHeU0_f5vZoowdpzgbXYOFU9sCqEsyt1dYQ3dyHQnGXadvFyhAJwN-IAWVjLOhyDnd35KQt_Jvbs02YM66WHf-OSj7YNU-fqW7QXy2XIcaZOf344fJaPXHd0adqg98_5Z2lYyxgqSUFp4fx2j-8QaBTEz0u66x9XE1j1So0YAVNMXyZUiXcAlbxICHdpngixpSvmgdqV7twi3Za0HHfJVTRrZTmXTWiAHMtcpx7OVpPuDuE-57MmREjQZ4EQGz5atHMCITY60LwsagLcditMpzXotVNQ',
  },
  ES256: {
    jwk: { kty: 'EC', crv: 'P-256', x: 'B3WG_QlCGxqkKXKcmvtOCX7vE0GcbrKCPxEEOG6BIcM', y: 'CY-SVIZ4uOK2BwVE57Ut4XyFRdr7o6hr-rV8JB6Noro' },
    signature: 'JW09I0_zjx7mg5e18j4FDWYDyy7TTB880LaCy0UWmvCYUX4YPPOC4BkSI88b0IC3-dXcmowEaYwySf_dTch9QQ',
  },
  ES384: {
    jwk: {
      kty: 'EC',
      crv: 'P-384',
      x: 'A_SdNPoliqeLiMPHcR1t9vcJSqIJX48ufcXpnvNlGXFJFOnnVwaSmlqaE66vNglq',
      y: 'G5Wkepm2msZppSIsWR_SN-81BKk2VNlPQtPJHJ5Vo49UZ99fJEzgF7oierEP7sXC',
    },
    signature:
      'zLd3IvDAfmTGW5x828y-86CHs7_FovF9TTQffxo8jIDVtWwqrX9Nw3MxrzNaY97uIJswc1mbndkqTsvpvzSORlDUIc1gypUZhfozjdhYuXdY0xhoQc7rm0QdTzWK31_h',
  },
  ES512: {
    jwk: {
      kty: 'EC',
      crv: 'P-521',
      x: 'AOhyWrNJW9Xf8YqqrNGnkhoXuY8tduK6WyQh00yWlRs-CeR5SE8fvcgEmiSP-jUv-c3-05ZjuZzEZ-LWiyUVFcNd',
      y: 'AdBCoq53e7WyGQJmYUT-COEMoIpOsP9Xk_cjyJQiF_UEHK8VsxrkxsePczpE7nJ975BMzLSVTKjG-EmsBbknL5a6',
    },
    signature:
      'Ad6VWUWIdpvtjxcLIzBXIgXw-CVwVCPxDlZ9Q8QGN_Gmx-Yn2yK9ppXsCg7iVb2xF8RT9u9xtLOO3rwlDEpfnmtRAVKv8exipIK8eOCM6pHw4sbkRN7zCm0w2aPTPhHJRUk9ZuhapgdeJ8iBATyg5n640XobhM9TV3I-XBM1WI5bzIts',
  },
  PS256: {
    jwk: RSA,
    signature:
      'bIvLs_2eFiVq6TSA5NYg6E-Z-nMucf-MnehkgqMBvyYXy_MIYj2IaCoZ6G-RPAmmXkz-fk_ZxP05QQ7dJiOIOa0tX06am8dQ79FKjBc0DYXgthQRGMOScQnDgkkfv77vHpGxWNyC-8hED7lmwEPQIInC7xRXoSuxuE6UM-ay6R7UErIcNz5iX_wlu5BJlKt5l-KQ7IypohiFbFvOCTMp0y-6sOYqBdjC1516jcDhu-Bb_DrV-UIwLvzu62qe2NvRFiN60sV9Dx8uxzpWBrnxj8qgIBA6Ur6RNHz3facjJe7Dxv9Yx8JWCLsKLLlBcMR5ehSwmj1EFZ0cQ8qyWu4DDg',
  },
  PS384: {
    jwk: RSA,
    signature:
      'mf2tPnlTyHyM75oZNyEIAZRsDVKR4STeGGDNK9RuWzopQo2rkutWgRj9-Z09MeY7NgGVzrBgQS34o4Lw1WiseqViC9GYktUkBxCZzM5YnaT5HRWbKHXyTRLFCjjDK1Yp9oi-PMoDH-pEbdutPW7v-1_aeTUc_vhiIv5Ljk_1Ui8kU91-yAC9c5cwoBsbIlrAvyr3BdlSLGzFIbSG1ADX33VCrxP2GSOBMhMY9BPcI6CPZi1TSjbZuxiZ3lQK_9d3ai1YfHFT9jQBbBqNA_L14My_oSjbPKhNCzwjdIJ76_1gBBs2-VHT93p8Gf6lM1_4lGc-6bmQ260GX9xPuYPI9g',
  },
  PS512: {
    jwk: RSA,
    signature:
      'oSBCIAYXU3HeJIgbwLXI-uAVSJoefcRw5qT5wC_MUYRkhlGIcROHRSK6TORj4Z8-8mEuUIZshZBclYS6vHRr9bL6HrWPBh8VwejHNacy0uTF_SKOQeiknxUBRBfUFdYBine2YtNMY_8qpHKJP5tKQtqd8tIeAkXgqxuxAKzXA6HBvqR5YxSgquyrNP-TD10PvJAcgU8_LQ3jfHe5wx-2O-e5UXI_m40Y6bDc1WSwDBRe7TcUhmMLqvAD53913eietoF3f15PXEsStcGdIE4Z4ZUIh0RuDUWkjjCYGNEndXVbXA6wjPKGRLEnVb2EKg7GA66ke7XImPpiiw6YU6TIZQ',
  },
};
